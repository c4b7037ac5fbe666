// The kernel of hopper_product (ops/cuda/gemm_sm90.h). A block makes tiles of 128 rows x N columns: one thread asks the
// copy engine for boxes of x (rows shifted by the tap, zero outside) and of w, as many stages ahead as fit; two
// warpgroups of 64 rows each multiply them with wgmma and finish the fp32 sums in registers. Lanes exchange rounded results
// and operands so that gate, residual and y are read and written in 16-byte vectors, 64 bytes of a row at a time; operands
// are asked for while the last products are under way.
// Two blocks form a cluster of neighbouring row tiles: each loads half of the w tile and sends it to both. Blocks are
// persistent; tiles go by groups of rows, so that one group's x and all of w stay in L2.
// The second warpgroup starts kLag stages behind the first: while one finishes its tile the other has products left to
// do, and the lag renews itself at every tile, so that the tensor cores idle little at the ends of tiles.
// E4M3: a row of x has a scale. Sums are kept in units of the scale of the tap at hand and are rescaled between taps.
#pragma once

#include "ops/cuda/device/gemm_ends_sm90.cuh"

namespace sana::cuda::sm90_gemm {

constexpr int kThreads = 384;   // a warpgroup of loaders, two of multipliers
constexpr int kRow = 128;       // bytes of a row of a stage: the widest swizzle
constexpr int kGroup = 8;       // clusters of rows whose tiles are neighbours in time
constexpr int kLag = 2;         // stages
constexpr int kLastStages = 6;  // with which what ends a tile is made ready
constexpr int kSharedLimit = 227 * 1024;

template <int N>
struct Layout {
    static constexpr int kA = kRows * kRow, kB = N * kRow, kStage = kA + kB;
    static constexpr int kColumns = 3 * N * 4;       // of a warpgroup: values of the tile's columns
    static constexpr int kRest = 1024 + 2 * 8 * 16;  // to align the first stage; two barriers a stage
    static constexpr int kStages = std::min(8, (kSharedLimit - kRest - 2 * kColumns) / kStage);
    static constexpr int kBytes = kRest + kStages * kStage + 2 * kColumns;
    static_assert(kStages >= 3);
};

// Of the tensor cores for a stage: two warpgroups' four instructions of N/2 cycles.
template <int N>
constexpr int kStageCycles = 4 * N;

// A block's tile of `columns * N` on: its rows of y in a sample, and the stages of the taps that find rows of x for some row of
// the cluster's two tiles (of a convolution over frames, tiles of the first and the last frame need two taps of three).
struct Tile {
    int column, sample, row, first_tap, stages;  // column: of tiles

    // Tiles in the order of their making: within a group of kGroup clusters, rows first, then columns.
    __device__ __forceinline__ Tile(const Plan& g, int index, int rank) {
        int per_group = kGroup * g.column_tiles, group = index / per_group,
            in_group = index - group * per_group;
        int clusters = min(kGroup, g.row_clusters - group * kGroup);
        column = in_group / clusters;
        int cluster = group * kGroup + in_group - column * clusters, end_tap = 0;
        first_tap = g.taps;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            int tile = cluster * 2 + r, of = tile / g.row_tiles, start = (tile - of * g.row_tiles) * kRows;
            if (r == rank) {
                sample = of;
                row = start;
            }
            if (of >= g.batch) continue;
            int from = start - g.before;
            for (int tap = 0; tap < g.taps; ++tap, from += g.tap_step) {
                if (from + kRows <= 0 || from >= g.x_rows) continue;
                first_tap = min(first_tap, tap);
                end_tap = max(end_tap, tap + 1);
            }
        }
        if (first_tap >= end_tap) {  // zeros all the same
            first_tap = 0;
            end_tap = 1;
        }
        stages = (end_tap - first_tap) * g.chunks;
    }
};

template <class In, int N>
__device__ void load_tiles(const Plan& g, const CUtensorMap* x, const CUtensorMap* w, uint32_t stages,
                           uint32_t full, uint32_t empty, int rank) {
    using L = Layout<N>;
    constexpr int kSpan = kRow / static_cast<int>(sizeof(In));
    int stage = 0, tiles = g.row_clusters * g.column_tiles, step = static_cast<int>(gridDim.x) / 2;
    uint32_t phase = 0;
    // Clusters begin one after the other, over a third of the time of a tile. Were all to end their tiles together, L2
    // would have to take all results at once while the tensor cores wait. Those with a tile less begin last.
    long long start = clock64(), cluster_id = blockIdx.x / 2, clusters = gridDim.x / 2,
              wait = int64_t{g.taps} * g.chunks * kStageCycles<N> / 3 * cluster_id / clusters;
    while (clock64() - start < wait) __nanosleep(100);
    int index = static_cast<int>(blockIdx.x) / 2;
    Tile next(g, index, rank);
    for (; index < tiles; index += step) {
        Tile tile = next;
        int row = tile.row - g.before + tile.first_tap * g.tap_step, depth = tile.first_tap * g.channels,
            chunk = 0;
        for (int i = 0; i < tile.stages; ++i) {
            sm90::barrier_wait(empty + stage * 8, phase ^ 1);
            uint32_t a = stages + stage * L::kStage, b = a + L::kA, bar = full + stage * 8;
            sm90::barrier_expect(bar, L::kStage);
            sm90::copy_box_3d(a, x, bar, chunk * kSpan, row, tile.sample);
            sm90::copy_box_2d_to_all(b + static_cast<uint32_t>(rank) * (L::kB / 2), w, bar,
                                     depth + chunk * kSpan, tile.column * N + rank * (N / 2), uint16_t{3});
            if (++stage == L::kStages) {
                stage = 0;
                phase ^= 1;
            }
            if (++chunk == g.chunks) {
                chunk = 0;
                row += g.tap_step;
                depth += g.channels;
            }
            if (i == 0 && index + step < tiles)
                next = Tile(g, index + step, rank);  // its divisions pass while stages are full
        }
    }
}

// Scales of the rows of x that tap `tap` reads for this lane's two rows, `row` behind the tile's first; where it reads
// nothing, those given.
__device__ __forceinline__ void scales_of(const Plan& g, const float* x_scale, const Tile& tile, int row,
                                          int tap, float (&scale)[2]) {
    int from = tile.row + row + tap * g.tap_step - g.before;
    if (tile.sample >= g.batch || tap >= g.taps) return;
#pragma unroll
    for (int j = 0; j < 2; ++j, from += 8) {
        if (from >= 0 && from < g.x_rows) scale[j] = x_scale[tile.sample * g.x_rows + from];
    }
}

// Adds the products of Steps times 32 bytes of depth; add 0: overwrites the sums.
template <class In, int N, int Steps>
__device__ __forceinline__ void multiply(float (&sums)[N / 2], uint64_t a, uint64_t b, int add) {
#pragma unroll
    for (int k = 0; k < Steps; ++k) sm90::wgmma<In, N>(sums, a + 2 * k, b + 2 * k, k > 0 ? 1 : add);
    sm90::wgmma_commit();
}

template <class In, int N, bool Activated, bool Identity>
__device__ void multiply_tiles(const Plan& g, const Ends& e, uint32_t stages, uint32_t full, uint32_t empty,
                               int rank, float* columns) {
    using L = Layout<N>;
    constexpr bool kScaled = std::is_same_v<In, __nv_fp8_e4m3>;
    constexpr int kSpan = kRow / static_cast<int>(sizeof(In));
    // The same for all lanes, and known to be.
    int group = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 128 - 1, 0),
        warp = static_cast<int>(threadIdx.x) % 128 / 32;
    columns += group * L::kColumns / 4;
    bool speaks = threadIdx.x % 128 < 2;  // tells block 0 and 1 of the cluster that a stage is free
    uint32_t listener = threadIdx.x % 128;
    int stage = 0, tiles = g.row_clusters * g.column_tiles, lag = kLag;
    uint32_t phase = 0;
    // Within the last stage of a tap less than half of the channels may be left.
    bool half = (g.channels - (g.chunks - 1) * kSpan) * 2 <= kSpan;
    int lane_row = group * 64 + warp * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
    uint64_t first_a = sm90::descriptor<kRow>(stages + group * 64 * kRow),
             first_b = sm90::descriptor<kRow>(stages + L::kA);
    if (group == 1) sm90::named_wait(1, 256);
    int index = static_cast<int>(blockIdx.x) / 2, step = static_cast<int>(gridDim.x) / 2;
    Tile next(g, index, rank);
    for (; index < tiles; index += step) {
        Tile tile = next;
        int tap = tile.first_tap, chunk = 0, previous = -1;
        // scale_ahead: of the next tap.
        float sums[N / 2], scale[2] = {1, 1}, scale_ahead[2];
        if constexpr (kScaled) scales_of(g, e.x_scale, tile, lane_row, tap, scale);
        auto multiply_stages = [&](int count) {
            for (; count > 0; --count) {
                if constexpr (kScaled) {
                    if (chunk == 0) {
                        if (previous >= 0) {
                            float ratio[2] = {scale[0] / scale_ahead[0], scale[1] / scale_ahead[1]};
                            sm90::wgmma_wait<0>();
#pragma unroll
                            for (int i = 0; i < N / 2; ++i) sums[i] *= ratio[i / 2 % 2];
                            scale[0] = scale_ahead[0];
                            scale[1] = scale_ahead[1];
                        }
                        scale_ahead[0] = scale[0];
                        scale_ahead[1] = scale[1];
                        scales_of(g, e.x_scale, tile, lane_row, tap + 1, scale_ahead);
                    }
                }
                sm90::barrier_wait(full + stage * 8, phase);
                // A descriptor counts addresses in 16 bytes.
                uint64_t a = first_a + static_cast<uint64_t>(stage * (L::kStage >> 4)),
                         b = first_b + static_cast<uint64_t>(stage * (L::kStage >> 4));
                int add = previous >= 0 ? 1 : 0;
                sm90::wgmma_begin();
                if (half && chunk == g.chunks - 1) {
                    multiply<In, N, 2>(sums, a, b, add);
                } else {
                    multiply<In, N, 4>(sums, a, b, add);
                }
                sm90::wgmma_wait<1>();
                if (previous >= 0 && speaks) sm90::barrier_arrive_at(empty + previous * 8, listener);
                previous = stage;
                if (++stage == L::kStages) {
                    stage = 0;
                    phase ^= 1;
                }
                if (++chunk == g.chunks) {
                    chunk = 0;
                    ++tap;
                }
                if (group == 0 && lag > 0 && --lag == 0) sm90::named_arrive(1, 256);
            }
        };
        // What the end of the tile needs, and the place of the next one, are made ready while there are products left: the
        // other warpgroup has the tensor cores meanwhile, and operands come from memory behind the last stages.
        int last = min(tile.stages, kLastStages);
        multiply_stages(tile.stages - last);
        Finisher<In, N, Activated, Identity> finisher(g, e, tile.sample, tile.row, group * 64, warp * 16,
                                                      tile.column * N);
        Columns<In, N> of_columns(e, tile.column * N, finisher.common_gate);
        finisher.begin();
        if (index + step < tiles) next = Tile(g, index + step, rank);
        multiply_stages(last);
        sm90::wgmma_wait<0>();
        if (speaks) sm90::barrier_arrive_at(empty + previous * 8, listener);
        // A product shorter than the lag.
        if (group == 0 && lag > 0) {
            lag = 0;
            sm90::named_arrive(1, 256);
        }
        // All four warps have left the tile before, as they have all multiplied.
        of_columns.share(columns);
        sm90::named_wait(2 + group, 128);
        finisher.finish(sums, scale, columns);
    }
}

template <class In, int N, bool Activated, bool Identity>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(kThreads, 1)
    hopper_product_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap w,
                          const __grid_constant__ Plan g, const __grid_constant__ Ends e) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    using L = Layout<N>;
    extern __shared__ uint8_t shared[];
    uint32_t base = (sm90::shared_address(shared) + 1023) & ~1023u;
    uint8_t* aligned = shared + (base - sm90::shared_address(shared));
    uint32_t full = base + L::kStages * L::kStage + 2 * L::kColumns, empty = full + L::kStages * 8;
    if (threadIdx.x == 0) {
        for (int s = 0; s < L::kStages; ++s) {
            sm90::barrier_init(full + s * 8, 1);
            sm90::barrier_init(empty + s * 8, 4);  // two warpgroups of each of two blocks
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    sm90::cluster_sync();
    int rank = static_cast<int>(sm90::cluster_rank());
    if (threadIdx.x < 128) {
        sm90::give_registers<40>();
        if (threadIdx.x == 0) load_tiles<In, N>(g, &x, &w, base, full, empty, rank);
    } else {
        sm90::take_registers<232>();
        multiply_tiles<In, N, Activated, Identity>(
            g, e, base, full, empty, rank, reinterpret_cast<float*>(aligned + L::kStages * L::kStage));
    }
    sm90::cluster_sync();  // a block may not end while the other still writes to it or listens to it
#endif
}

}  // namespace sana::cuda::sm90_gemm
