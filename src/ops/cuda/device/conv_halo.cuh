// The kernel of conv_halo (ops/cuda/conv_halo.h) for Hopper. A block makes tiles of 256 positions of a frame x N columns.
// One warp asks the copy engine for boxes of x, the positions of the tile with their halo (a box serves all taps on rows
// and columns), and for the taps' weights; two warpgroups multiply them with wgmma. The operand of a tap is a window into
// the box: 8 x 8 positions are 8 groups of 8 rows of shared memory, and the tap moves where they begin.
// Two blocks form a cluster: each loads half of the weights and sends it to both.
// Bytes from L2 for a tile, C channels in and 9 taps a frame: 1.27 * 256 * 2C and N * 9C (a half of the weights), where a
// product that loads every tap needs 9 * 256 * 2C. Blocks are persistent; tiles go by groups of places, through all frames,
// so that the frames that three taps share are still in L2.
#pragma once

#include "ops/cuda/device/conv_tiles.cuh"
#include "ops/cuda/device/sm90.cuh"

namespace sana::cuda::halo {

// Two rings of stages: boxes of x, and weights, of one tap or (Row) of the three taps of a row.
template <int N, int Span, bool Row>
struct Layout {
    static constexpr bool kWide =
        N >= 32;  // narrow weights are not worth sharing, nor are their results worth a strip
    static constexpr int kA = (kHalo * Span * 2 + 1023) / 1024 * 1024, kAStages = Span == 64 ? 2 : 3;
    static constexpr int kTogether = Row ? 3 : 1, kTap = N * Span * 2, kB = kTogether * kTap;
    static constexpr int kEnds = kWide ? 8 * 16 * (kStrip + kPad) * 4 : 0;
    static constexpr int kBStages =
        std::min(8, (kSharedLimit - 1024 - 256 - kAStages * kA - kEnds) / ((kB + 1023) / 1024 * 1024));
    static constexpr int kBStep = (kB + 1023) / 1024 * 1024;
    static constexpr int kWeights = kAStages * kA, kStrips = kWeights + kBStages * kBStep,
                         kBarriers = kStrips + kEnds;
    static constexpr int kBytes = 1024 + kBarriers + 24 * kAStages + 16 * kBStages;
    static_assert(kBStages >= 3 && kBytes <= kSharedLimit);
};

// A ring's place: which stage, and the parity of its barriers.
template <int Stages>
struct Ring {
    uint32_t full, empty;  // barriers
    int stage = 0;
    uint32_t phase = 0;

    __device__ __forceinline__ void next() {
        if (++stage == Stages) {
            stage = 0;
            phase ^= 1;
        }
    }
    __device__ __forceinline__ uint32_t filled() const { return full + stage * 8; }
    __device__ __forceinline__ uint32_t emptied() const { return empty + stage * 8; }
};

template <class T, int N, int Span, bool Row>
__device__ void load_tiles(const Grid& g, const CUtensorMap* x, const CUtensorMap* past, const CUtensorMap* w,
                           uint32_t base, Ring<Layout<N, Span, Row>::kAStages> boxes, uint32_t landed,
                           Ring<Layout<N, Span, Row>::kBStages> weights, uint32_t rank) {
    using L = Layout<N, Span, Row>;
    int tiles = (g.positions + 1) / 2 * g.column_tiles;
    for (int index = static_cast<int>(blockIdx.x) / 2; index < tiles;
         index += static_cast<int>(gridDim.x) / 2) {
        Place p = place_of(g, index, rank);
        int column = index % g.column_tiles * N;
        for (int chunk = 0; chunk < g.chunks; ++chunk) {
            for (int k3 = 0; k3 < g.taps[2]; ++k3) {
                int frame = min(max(p.frame + k3 - g.before[2], g.first_frame), g.last_frame);
                bool old = frame < g.past_size;
                sm90::barrier_wait(boxes.emptied(), boxes.phase ^ 1);
                uint32_t arrived = g.reflect ? landed + boxes.stage * 8 : boxes.filled();
                sm90::barrier_expect(arrived, static_cast<uint32_t>(g.box_bytes));
                sm90::copy_box_5d(base + boxes.stage * L::kA, old ? past : x, arrived, chunk * Span,
                                  p.column + p.right - g.before[0], p.row + p.below - g.before[1],
                                  old ? frame : frame - g.past_size, p.sample);
                boxes.next();
                int plane = g.taps[0] * g.taps[1];
                for (int tap = 0; tap < plane; tap += L::kTogether) {
                    uint32_t to = base + L::kWeights + weights.stage * L::kBStep;
                    sm90::barrier_wait(weights.emptied(), weights.phase ^ 1);
                    sm90::barrier_expect(weights.filled(), L::kB);
                    for (int i = 0; i < L::kTogether; ++i) {
                        int depth = (k3 * plane + tap + i) * g.channels + chunk * Span;
                        if constexpr (L::kWide) {
                            int half = static_cast<int>(rank) * (N / 2);
                            sm90::copy_box_2d_to_all(to + i * L::kTap + half * Span * 2, w, weights.filled(),
                                                     depth, column + half, uint16_t{3});
                        } else {
                            sm90::copy_box_2d_to_all(to + i * L::kTap, w, weights.filled(), depth, column,
                                                     static_cast<uint16_t>(1u << rank));
                        }
                    }
                    weights.next();
                }
            }
        }
    }
}

// One warp's part when frames are padded by reflection: the copy engine has put zeros outside of the frame.
template <int N, int Span, bool Row>
__device__ void reflect_boxes(const Grid& g, uint8_t* base, Ring<Layout<N, Span, Row>::kAStages> boxes,
                              uint32_t landed, uint32_t rank) {
    using L = Layout<N, Span, Row>;
    constexpr int kVectors = Span / 8;  // of a position
    int tiles = (g.positions + 1) / 2 * g.column_tiles, lines = g.box[1] + 2;
    int lane = static_cast<int>(threadIdx.x) % 32;
    for (int index = static_cast<int>(blockIdx.x) / 2; index < tiles;
         index += static_cast<int>(gridDim.x) / 2) {
        Place p = place_of(g, index, rank);
        int last_line = g.size[1] - p.row + 1, last_column = g.size[0] - p.column + 1;  // outside, in the box
        for (int box = 0; box < g.chunks * g.taps[2]; ++box) {
            sm90::barrier_wait(landed + boxes.stage * 8, boxes.phase);
            uint8_t* stage = base + boxes.stage * L::kA;
            // Vector v of a position, where the swizzle put it.
            auto at = [&](int position, int v) {
                int moved = v ^ (Span == 64 ? position & 7 : position >> 1 & 3);
                return reinterpret_cast<uint4*>(stage + position * Span * 2 + moved * 16);
            };
            auto copy = [&](int count, int to, int from, int step) {
                for (int i = lane; i < count * kVectors; i += 32) {
                    int along = i / kVectors * step;
                    *at(to + along, i % kVectors) = *at(from + along, i % kVectors);
                }
                __syncwarp();
            };
            if (p.row == 0) copy(g.pitch, 0, 2 * g.pitch, 1);
            if (last_line < lines) copy(g.pitch, last_line * g.pitch, (last_line - 2) * g.pitch, 1);
            if (p.column == 0) copy(lines, 0, 2, g.pitch);
            if (last_column < g.pitch) copy(lines, last_column, last_column - 2, g.pitch);
            asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
            __syncwarp();
            if (lane == 0) sm90::barrier_arrive_at(boxes.filled(), rank);
            boxes.next();
        }
    }
}

template <class T, int N, int Span, bool Row>
__device__ void multiply_tiles(const Grid& g, const Ends& e, uint32_t base,
                               Ring<Layout<N, Span, Row>::kAStages> boxes,
                               Ring<Layout<N, Span, Row>::kBStages> weights, uint32_t rank, float* strips) {
    using L = Layout<N, Span, Row>;
    int group = static_cast<int>(threadIdx.x) / 128 - 1, warp = static_cast<int>(threadIdx.x) % 128 / 32;
    float* strip = strips + (group * 4 + warp) * 16 * (kStrip + kPad);
    uint32_t listener =
        threadIdx.x % 128;  // threads 0 and 1 tell block 0 and 1 of the cluster that a stage is free
    auto give_weights = [&](uint32_t barrier) {
        if (barrier != 0 && (L::kWide ? listener < 2 : listener == 0))
            sm90::barrier_arrive_at(barrier, L::kWide ? listener : rank);
    };
    auto give_box = [&](uint32_t barrier) {
        if (barrier != 0 && listener == 0) sm90::barrier_arrive_at(barrier, rank);
    };
    // Descriptors; an offset in bytes / 16 may be added to their addresses.
    uint64_t window[2], taps = sm90::descriptor<Span * 2>(base + L::kWeights);
    uint32_t line = static_cast<uint32_t>(g.pitch * Span * 2);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
        int block = group * 2 + j;
        int position = (block >> g.box_log) * 8 * g.pitch + (block & ((1 << g.box_log) - 1)) * 8;
        window[j] = sm90::descriptor<Span * 2>(base + static_cast<uint32_t>(position * Span * 2), line);
    }
    int tiles = (g.positions + 1) / 2 * g.column_tiles, depth = g.chunks * g.taps[2];
    for (int index = static_cast<int>(blockIdx.x) / 2; index < tiles;
         index += static_cast<int>(gridDim.x) / 2) {
        float sums[2][N / 2];
        uint32_t used_box = 0,
                 used_weights = 0;  // barriers of what the last products read, once they need it no more
        int any = 0;
        for (int box = 0; box < depth; ++box) {
            sm90::barrier_wait(boxes.filled(), boxes.phase);
            for (int k2 = 0; k2 < g.taps[1]; ++k2) {
                for (int start = 0; start < g.taps[0]; start += L::kTogether) {
                    sm90::barrier_wait(weights.filled(), weights.phase);
                    uint32_t a = (boxes.stage * L::kA + k2 * line + start * Span * 2) / 16;
                    uint32_t b = weights.stage * L::kBStep / 16;
                    sm90::wgmma_begin();
#pragma unroll
                    for (int i = 0; i < L::kTogether; ++i) {
#pragma unroll
                        for (int j = 0; j < 2; ++j) {
#pragma unroll
                            for (int k = 0; k < Span / 16; ++k)
                                sm90::wgmma<T, N>(sums[j], window[j] + a + (i * Span * 2 / 16 + k * 2),
                                                  taps + b + (i * L::kTap / 16 + k * 2),
                                                  any != 0 || i > 0 || k > 0);
                        }
                    }
                    any = 1;
                    sm90::wgmma_commit();
                    sm90::wgmma_wait<1>();
                    give_weights(used_weights);
                    give_box(used_box);
                    used_weights = weights.emptied();
                    used_box = start + L::kTogether == g.taps[0] && k2 == g.taps[1] - 1 ? boxes.emptied() : 0;
                    weights.next();
                }
            }
            boxes.next();
        }
        sm90::wgmma_wait<0>();
        give_weights(used_weights);
        give_box(used_box);
        Place p = place_of(g, index, rank);
        int column = index % (g.column_tiles / (g.scale * g.scale)) * N;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            Finisher<T> finisher(g, e, p, group * 2 + j);
            if constexpr (L::kWide) {
                finish_block<T, N>(finisher, sums[j], column, strip);
            } else {
                finish_narrow<T>(finisher, sums[j]);
            }
        }
    }
}

template <class T, int N, int Span, bool Row>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(kThreads, 1)
    conv_halo_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap past,
                     const __grid_constant__ CUtensorMap w, const __grid_constant__ Grid g,
                     const __grid_constant__ Ends e) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    using L = Layout<N, Span, Row>;
    extern __shared__ uint8_t shared[];
    uint32_t base = (sm90::shared_address(shared) + 1023) & ~1023u;
    uint8_t* aligned = shared + (base - sm90::shared_address(shared));
    uint32_t barriers = base + L::kBarriers;
    Ring<L::kAStages> boxes{barriers, barriers + L::kAStages * 8};
    uint32_t landed = barriers + L::kAStages * 16, rest = landed + L::kAStages * 8;
    Ring<L::kBStages> weights{rest, rest + L::kBStages * 8};
    if (threadIdx.x == 0) {
        for (int s = 0; s < L::kAStages; ++s) {
            sm90::barrier_init(boxes.full + s * 8, 1);
            sm90::barrier_init(boxes.empty + s * 8, 2);  // two warpgroups
            sm90::barrier_init(landed + s * 8, 1);
        }
        for (int s = 0; s < L::kBStages; ++s) {
            sm90::barrier_init(weights.full + s * 8, 1);
            sm90::barrier_init(weights.empty + s * 8, L::kWide ? 4 : 2);  // of each block that receives them
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    sm90::cluster_sync();
    uint32_t rank = sm90::cluster_rank();
    if (threadIdx.x < 128) {
        sm90::give_registers<24>();
        if (threadIdx.x == 0)
            load_tiles<T, N, Span, Row>(g, &x, &past, &w, base, boxes, landed, weights, rank);
        if (g.reflect && threadIdx.x / 32 == 1) reflect_boxes<N, Span, Row>(g, aligned, boxes, landed, rank);
    } else {
        sm90::take_registers<240>();
        multiply_tiles<T, N, Span, Row>(g, e, base, boxes, weights, rank,
                                        reinterpret_cast<float*>(aligned + L::kStrips));
    }
    sm90::cluster_sync();  // a block may not end while the other still writes to it or listens to it
#endif
}

}  // namespace sana::cuda::halo
