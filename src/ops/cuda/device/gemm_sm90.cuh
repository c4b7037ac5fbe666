// The kernel of hopper_product (ops/cuda/gemm_sm90.h). A block makes tiles of 128 rows x N columns: one thread asks the
// copy engine for boxes of x (rows shifted by the tap, zero outside) and of w, as many stages ahead as fit; two
// warpgroups of 64 rows each multiply them with wgmma and finish the fp32 sums in place, through a strip of shared memory,
// so that bias, gate, residual and y are read and written in 16-byte vectors, 64 bytes of a row at a time.
// Two blocks form a cluster of neighbouring row tiles: each loads half of the w tile and sends it to both. Blocks are
// persistent; tiles go by groups of rows, so that one group's x and all of w stay in L2.
// The second warpgroup starts kLag stages behind the first: while one finishes its tile the other has products left to
// do, and the lag renews itself at every tile, so that the tensor cores idle little at the ends of tiles.
// E4M3: a row of x has a scale. Sums are kept in units of the scale of the tap at hand and are rescaled between taps.
#pragma once

#include "ops/cuda/device/gemm_ends_sm90.cuh"

namespace sana::cuda::sm90_gemm {

constexpr int kThreads = 384;         // a warpgroup of loaders, two of multipliers
constexpr int kRow = 128;             // bytes of a row of a stage: the widest swizzle
constexpr int kStrip = 32, kPad = 4;  // columns finished at once, and the pad that keeps banks apart
constexpr int kGroup = 8;             // clusters of rows whose tiles are neighbours in time
constexpr int kLag = 2;               // stages
constexpr int kSharedLimit = 227 * 1024;

template <int N>
struct Layout {
    static constexpr int kA = kRows * kRow, kB = N * kRow, kStage = kA + kB;
    static constexpr int kStrips = 8 * 16 * (kStrip + kPad) * 4, kColumns = 3 * N * 4;  // of a warpgroup
    static constexpr int kEnds = kStrips + 2 * kColumns;
    static constexpr int kStages = std::min(8, (kSharedLimit - kEnds - 2048) / kStage);
    static constexpr int kBytes = 1024 + kStages * kStage + kEnds + 2 * kStages * 8;
    static_assert(kStages >= 3);
};

// Of the tensor cores for a stage: two warpgroups' four instructions of N/2 cycles.
template <int N>
constexpr int kStageCycles = 4 * N;

// Tiles in the order of their making: within a group of kGroup clusters, rows first, then columns.
__device__ __forceinline__ void tile_of(const Plan& g, int index, int& cluster, int& column) {
    int per_group = kGroup * g.column_tiles, group = index / per_group, in_group = index - group * per_group;
    int clusters = min(kGroup, g.row_clusters - group * kGroup);
    cluster = group * kGroup + in_group % clusters;
    column = in_group / clusters;
}

template <class In, int N>
__device__ void load_tiles(const Plan& g, const CUtensorMap* x, const CUtensorMap* w, uint32_t stages,
                           uint32_t full, uint32_t empty, uint32_t rank) {
    using L = Layout<N>;
    constexpr int kSpan = kRow / static_cast<int>(sizeof(In));
    int stage = 0, tiles = g.row_clusters * g.column_tiles;
    uint32_t phase = 0;
    // Clusters begin one after the other, over a third of the time of a tile. Were all to end their tiles together, L2
    // would have to take all results at once while the tensor cores wait. Those with a tile less begin last.
    long long start = clock64(), cluster_id = blockIdx.x / 2, clusters = gridDim.x / 2,
              wait = int64_t{g.taps} * g.chunks * kStageCycles<N> / 3 * cluster_id / clusters;
    while (clock64() - start < wait) __nanosleep(100);
    for (int index = static_cast<int>(blockIdx.x) / 2; index < tiles;
         index += static_cast<int>(gridDim.x) / 2) {
        int cluster, column;
        tile_of(g, index, cluster, column);
        int tile = cluster * 2 + static_cast<int>(rank), sample = tile / g.row_tiles;
        int row = (tile - sample * g.row_tiles) * kRows - g.before;
        for (int tap = 0; tap < g.taps; ++tap, row += g.tap_step) {
            for (int chunk = 0; chunk < g.chunks; ++chunk) {
                sm90::barrier_wait(empty + stage * 8, phase ^ 1);
                uint32_t a = stages + stage * L::kStage, b = a + L::kA, bar = full + stage * 8;
                sm90::barrier_expect(bar, L::kStage);
                int c = chunk * kSpan;
                sm90::copy_box_3d(a, x, bar, c, row, sample);
                sm90::copy_box_2d_to_all(b + rank * (L::kB / 2), w, bar, tap * g.channels + c,
                                         column * N + static_cast<int>(rank) * (N / 2), uint16_t{3});
                if (++stage == L::kStages) {
                    stage = 0;
                    phase ^= 1;
                }
            }
        }
    }
}

// strip: shared memory of this warp, through which sums in wgmma's layout become rows of 8 columns a lane.
template <class In, int N, bool Activated>
__device__ __forceinline__ void finish_tile(const Finisher<In, Activated>& finisher, Operands operands,
                                            float (&sums)[N / 2], int first_column, float* strip,
                                            const float (&scale)[2], const float* columns) {
    int lane = static_cast<int>(threadIdx.x) % 32;
    constexpr int kPitch = kStrip + kPad;
#pragma unroll
    for (int start = 0; start < N; start += kStrip) {
        __syncwarp();
#pragma unroll
        for (int pair = 0; pair < kStrip / 8; ++pair) {
            const float* v = sums + (start / 8 + pair) * 4;
            float* to = strip + (lane / 4) * kPitch + pair * 8 + lane % 4 * 2;
            *reinterpret_cast<float2*>(to) = make_float2(v[0], v[1]);
            *reinterpret_cast<float2*>(to + 8 * kPitch) = make_float2(v[2], v[3]);
        }
        __syncwarp();
        int column = first_column + start + lane % 4 * 8;
        asm volatile("" : "+r"(column));  // else addresses of all strips are made, and kept, at once
        Operands next;
        if (start + kStrip < N) finisher.fetch(next, column + kStrip);
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            float v[8];
            Finisher<In, Activated>::eight_of(strip + (lane / 4 + 8 * j) * kPitch + lane % 4 * 8, v);
            finisher.template finish<N>(operands, v, j, column, scale[j], columns + start + lane % 4 * 8);
        }
        operands = next;
    }
}

// Scales of the rows of x that tap `tap` reads for this lane's two rows; where it reads nothing, those given.
__device__ __forceinline__ void scales_of(const Plan& g, const float* x_scale, int tile, int row, int tap,
                                          float (&scale)[2]) {
    int sample = tile / g.row_tiles;
    int from = (tile - sample * g.row_tiles) * kRows + row + tap * g.tap_step - g.before;
    if (sample >= g.batch) return;
#pragma unroll
    for (int j = 0; j < 2; ++j, from += 8) {
        if (from >= 0 && from < g.x_rows) scale[j] = x_scale[sample * g.x_rows + from];
    }
}

// Adds the products of Steps times 32 bytes of depth; add 0: overwrites the sums.
template <class In, int N, int Steps>
__device__ __forceinline__ void multiply(float (&sums)[N / 2], uint64_t a, uint64_t b, int add) {
#pragma unroll
    for (int k = 0; k < Steps; ++k) sm90::wgmma<In, N>(sums, a + 2 * k, b + 2 * k, k > 0 ? 1 : add);
    sm90::wgmma_commit();
}

template <class In, int N, bool Activated>
__device__ void multiply_tiles(const Plan& g, const Ends& e, uint32_t stages, uint32_t full, uint32_t empty,
                               uint32_t rank, float* strips) {
    using L = Layout<N>;
    constexpr bool kScaled = std::is_same_v<In, __nv_fp8_e4m3>;
    constexpr int kSpan = kRow / static_cast<int>(sizeof(In));
    // The same for all lanes, and known to be.
    int group = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 128 - 1, 0),
        warp = static_cast<int>(threadIdx.x) % 128 / 32;
    float* strip = strips + (group * 4 + warp) * 16 * (kStrip + kPad);
    float* columns = strips + (L::kStrips + group * L::kColumns) / 4;
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
    for (int index = static_cast<int>(blockIdx.x) / 2; index < tiles;
         index += static_cast<int>(gridDim.x) / 2) {
        int cluster, column, previous = -1;
        tile_of(g, index, cluster, column);
        int tile = cluster * 2 + static_cast<int>(rank);
        Finisher<In, Activated> finisher(g, e, tile, group * 64, warp * 16);
        Columns<In, N> of_columns(e, column * N, finisher.common_gate);
        Operands operands;
        finisher.fetch(operands, column * N + static_cast<int>(threadIdx.x) % 4 * 8);
        float sums[N / 2], scale[2] = {1, 1};
        if constexpr (kScaled) scales_of(g, e.x_scale, tile, lane_row, 0, scale);
        for (int tap = 0; tap < g.taps; ++tap) {
            if constexpr (kScaled) {
                if (tap > 0) {
                    float next[2] = {scale[0], scale[1]};
                    scales_of(g, e.x_scale, tile, lane_row, tap, next);
                    float ratio[2] = {scale[0] / next[0], scale[1] / next[1]};
                    sm90::wgmma_wait<0>();
#pragma unroll
                    for (int i = 0; i < N / 2; ++i) sums[i] *= ratio[i / 2 % 2];
                    scale[0] = next[0];
                    scale[1] = next[1];
                }
            }
            for (int chunk = 0; chunk < g.chunks; ++chunk) {
                sm90::barrier_wait(full + stage * 8, phase);
                // A descriptor counts addresses in 16 bytes.
                uint64_t a = first_a + static_cast<uint64_t>(stage * (L::kStage >> 4)),
                         b = first_b + static_cast<uint64_t>(stage * (L::kStage >> 4));
                int add = tap + chunk;
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
                if (group == 0 && lag > 0 && --lag == 0) sm90::named_arrive(1, 256);
            }
        }
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
        finish_tile<In, N, Activated>(finisher, operands, sums, column * N, strip, scale, columns);
    }
}

template <class In, int N, bool Activated>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(kThreads, 1)
    hopper_product_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap w,
                          const __grid_constant__ Plan g, const __grid_constant__ Ends e) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    using L = Layout<N>;
    extern __shared__ uint8_t shared[];
    uint32_t base = (sm90::shared_address(shared) + 1023) & ~1023u;
    uint8_t* aligned = shared + (base - sm90::shared_address(shared));
    uint32_t ends = base + L::kStages * L::kStage, full = ends + L::kEnds, empty = full + L::kStages * 8;
    if (threadIdx.x == 0) {
        for (int s = 0; s < L::kStages; ++s) {
            sm90::barrier_init(full + s * 8, 1);
            sm90::barrier_init(empty + s * 8, 4);  // two warpgroups of each of two blocks
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    sm90::cluster_sync();
    uint32_t rank = sm90::cluster_rank();
    if (threadIdx.x < 128) {
        sm90::give_registers<40>();
        if (threadIdx.x == 0) load_tiles<In, N>(g, &x, &w, base, full, empty, rank);
    } else {
        sm90::take_registers<232>();
        multiply_tiles<In, N, Activated>(g, e, base, full, empty, rank,
                                         reinterpret_cast<float*>(aligned + L::kStages * L::kStage));
    }
    sm90::cluster_sync();  // a block may not end while the other still writes to it or listens to it
#endif
}

}  // namespace sana::cuda::sm90_gemm
