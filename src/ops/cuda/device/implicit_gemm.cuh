// The kernel of implicit_gemm (ops/cuda/implicit_gemm.h) for Hopper. A block makes tiles of 128 grid positions x N columns: one warp asks the copy engine for boxes
// of x (positions x channels, shifted by the tap, zero outside) and of w, four or more stages ahead; two warpgroups of 64
// positions each multiply them with wgmma and finish the fp32 sums in place: through a strip of shared memory, so that
// bias, gate, residual and y are read and written in 16-byte vectors, rows of 64 bytes at a time.
// Two blocks form a cluster of neighbouring position tiles: each loads half of the w tile and sends it to both, which
// brings the bytes from L2 down to (128 + N/2) * 2 per 256 * N FLOP. Blocks are persistent; tiles go by groups of
// positions, so that one group's x and all of w stay in L2.
#pragma once

#include "ops/cuda/device/element.cuh"
#include "ops/cuda/device/sm90.cuh"

namespace sana::cuda::window {

constexpr int kRows = 128;            // positions of a tile
constexpr int kThreads = 384;         // a warpgroup of loaders, two of multipliers
constexpr int kStrip = 32, kPad = 4;  // columns finished at once, and the pad that keeps banks apart
constexpr int kGroup = 8;             // clusters of positions whose tiles are neighbours in time
constexpr int kSharedLimit = 227 * 1024;

struct Grid {
    int x_tiles[4];       // tiles on each axis of y
    int box[2], box_log;  // positions of a tile on axes 1 and 2; log2(box[0])
    int y_size[4];
    int taps[3], before[3], tap_step;
    int past_size;
    int chunks, channels;  // K = taps * channels, `chunks` steps a tap
    int row_clusters, column_tiles;
    int tokens, groups, per_group;  // of gates
};

struct Ends {
    void* y;
    const void *bias, *identity, *gate, *residual;
    int64_t y_stride, identity_stride, gate_stride, residual_stride;
    int width;  // a multiple of 8
    Activation activation;
};

// A stage holds Sub boxes of Span channels of x and of w.
template <int N, int Span, int Sub>
struct Layout {
    static constexpr int kA = kRows * Span * 2, kB = N * Span * 2, kStage = (kA + kB) * Sub;
    static constexpr int kEnds = 8 * 16 * (kStrip + kPad) * 4;
    static constexpr int kStages = std::min(8, (kSharedLimit - kEnds - 2048) / kStage);
    static constexpr int kBytes = 1024 + kStages * kStage + kEnds + 2 * kStages * 8;
    static_assert(kStages >= 3);
};

struct Place {
    int at[4];
};

// First position of a tile; beyond the grid on axis 4 when there is no such tile.
__device__ __forceinline__ Place place_of(const Grid& g, int tile) {
    Place p;
    p.at[0] = tile % g.x_tiles[0] * g.box[0];
    tile /= g.x_tiles[0];
    p.at[1] = tile % g.x_tiles[1] * g.box[1];
    tile /= g.x_tiles[1];
    p.at[2] = tile % g.x_tiles[2];
    p.at[3] = tile / g.x_tiles[2];
    return p;
}

// Tiles in the order of their making: within a group of kGroup clusters, positions first, then columns.
__device__ __forceinline__ void tile_of(const Grid& g, int index, int& cluster, int& column) {
    int per_group = kGroup * g.column_tiles, group = index / per_group, in_group = index - group * per_group;
    int clusters = min(kGroup, g.row_clusters - group * kGroup);
    cluster = group * kGroup + in_group % clusters;
    column = in_group / clusters;
}

template <class T, int N, int Span, int Sub>
__device__ void load_tiles(const Grid& g, const CUtensorMap* x, const CUtensorMap* past, const CUtensorMap* w,
                           uint32_t stages, uint32_t full, uint32_t empty, uint32_t rank) {
    using L = Layout<N, Span, Sub>;
    int stage = 0;
    uint32_t phase = 0;
    int tiles = g.row_clusters * g.column_tiles;
    for (int index = static_cast<int>(blockIdx.x) / 2; index < tiles;
         index += static_cast<int>(gridDim.x) / 2) {
        int cluster, column;
        tile_of(g, index, cluster, column);
        Place p = place_of(g, cluster * 2 + static_cast<int>(rank));
        for (int k3 = 0; k3 < g.taps[2]; ++k3) {
            int frame = p.at[2] + k3 - g.before[2];
            bool old = frame < g.past_size;
            const CUtensorMap* from = old ? past : x;
            int i3 = old ? frame : frame - g.past_size;
            for (int k2 = 0; k2 < g.taps[1]; ++k2) {
                for (int k1 = 0; k1 < g.taps[0]; ++k1) {
                    int i1 = p.at[0] + k1 * g.tap_step - g.before[0], i2 = p.at[1] + k2 - g.before[1];
                    int tap = (k3 * g.taps[1] + k2) * g.taps[0] + k1;
                    for (int chunk = 0; chunk < g.chunks; ++chunk) {
                        sm90::barrier_wait(empty + stage * 8, phase ^ 1);
                        uint32_t a = stages + stage * L::kStage, b = a + L::kA * Sub, bar = full + stage * 8;
                        sm90::barrier_expect(bar, L::kStage);
#pragma unroll
                        for (int s = 0; s < Sub; ++s) {
                            int c = (chunk * Sub + s) * Span;
                            sm90::copy_box_5d(a + s * L::kA, from, bar, c, i1, i2, i3, p.at[3]);
                            sm90::copy_box_2d_to_all(
                                b + s * L::kB + rank * (L::kB / 2), w, bar, tap * g.channels + c,
                                column * N + static_cast<int>(rank) * (N / 2), uint16_t{3});
                        }
                        if (++stage == L::kStages) {
                            stage = 0;
                            phase ^= 1;
                        }
                    }
                }
            }
        }
    }
}

// What a lane finishes of a strip: 8 columns of two rows. Its operands are asked for one strip ahead, the first before the
// products, so that their latency passes behind other work.
struct Operands {
    uint4 identity[2], residual[2];  // bf16; bias and gate are few and stay in L1
};

// Two bf16 of one word.
__device__ __forceinline__ float2 unpacked(uint32_t pair) {
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

template <class F>
__device__ __forceinline__ void combine(float (&v)[8], uint4 other, F f) {
    uint32_t words[4] = {other.x, other.y, other.z, other.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        float2 o = unpacked(words[i]);
        v[2 * i] = f(v[2 * i], o.x);
        v[2 * i + 1] = f(v[2 * i + 1], o.y);
    }
}

template <class T>
struct Finisher {
    const Ends& e;
    int rows[2], gate_rows[2];
    bool valid[2];

    __device__ Finisher(const Grid& g, const Ends& ends, const Place& place, int warp_row) : e(ends) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            int r = warp_row + static_cast<int>(threadIdx.x) % 32 / 4 + 8 * j;
            int i1 = place.at[0] + (r & (g.box[0] - 1)), i2 = place.at[1] + (r >> g.box_log);
            valid[j] = i1 < g.y_size[0] && i2 < g.y_size[1] && place.at[3] < g.y_size[3];
            rows[j] = ((place.at[3] * g.y_size[2] + place.at[2]) * g.y_size[1] + i2) * g.y_size[0] + i1;
            gate_rows[j] = rows[j] / g.tokens * g.groups + rows[j] % g.tokens / g.per_group;
        }
    }

    __device__ __forceinline__ static uint4 eight(const void* base, int64_t offset) {
        return *reinterpret_cast<const uint4*>(static_cast<const T*>(base) + offset);
    }

    __device__ __forceinline__ void fetch(Operands& o, int column) const {
        if (column >= e.width) return;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            if (!valid[j]) continue;
            if (e.identity != nullptr)
                o.identity[j] = eight(e.identity, rows[j] * e.identity_stride + column);
            if (e.residual != nullptr)
                o.residual[j] = eight(e.residual, rows[j] * e.residual_stride + column);
        }
    }

    // v: the sums of row j.
    __device__ __forceinline__ void finish(const Operands& o, float (&v)[8], int j, int column) const {
        if (!valid[j] || column >= e.width) return;
        T* y = static_cast<T*>(e.y) + rows[j] * e.y_stride + column;
        auto plus = [](float x, float z) { return x + z; };
        if (e.bias != nullptr) combine(v, eight(e.bias, column), plus);
        if (e.identity != nullptr) combine(v, o.identity[j], plus);
        if (e.activation != Activation::none) {
#pragma unroll
            for (int i = 0; i < 8; ++i) v[i] = activated(v[i], e.activation);
        }
        if (e.gate != nullptr) {
            combine(v, eight(e.gate, gate_rows[j] * e.gate_stride + column),
                    [](float x, float z) { return x * z; });
        }
        if (e.residual != nullptr) combine(v, o.residual[j], plus);
        store<8>(y, v);
    }
};

// strip: shared memory of this warp, through which sums in wgmma's layout become rows of 8 columns a lane.
template <class T, int N>
__device__ __forceinline__ void finish_tile(const Finisher<T>& finisher, Operands operands,
                                            float (&sums)[N / 2], int first_column, float* strip) {
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
            const float4* from =
                reinterpret_cast<const float4*>(strip + (lane / 4 + 8 * j) * kPitch + lane % 4 * 8);
            *reinterpret_cast<float4*>(&v[0]) = from[0];
            *reinterpret_cast<float4*>(&v[4]) = from[1];
            finisher.finish(operands, v, j, column);
        }
        operands = next;
    }
}

template <class T, int N, int Span, int Sub>
__device__ void multiply_tiles(const Grid& g, const Ends& e, uint32_t stages, uint32_t full, uint32_t empty,
                               uint32_t rank, float* strips) {
    using L = Layout<N, Span, Sub>;
    int group = static_cast<int>(threadIdx.x) / 128 - 1, warp = static_cast<int>(threadIdx.x) % 128 / 32;
    float* strip = strips + (group * 4 + warp) * 16 * (kStrip + kPad);
    bool speaks = threadIdx.x % 128 < 2;  // tells block 0 and 1 of the cluster that a stage is free
    uint32_t listener = threadIdx.x % 128;
    int stage = 0, tiles = g.row_clusters * g.column_tiles;
    uint32_t phase = 0;
    int steps = g.taps[0] * g.taps[1] * g.taps[2] * g.chunks;
    for (int index = static_cast<int>(blockIdx.x) / 2; index < tiles;
         index += static_cast<int>(gridDim.x) / 2) {
        int cluster, column, previous = -1;
        tile_of(g, index, cluster, column);
        Finisher<T> finisher(g, e, place_of(g, cluster * 2 + static_cast<int>(rank)), group * 64 + warp * 16);
        Operands operands;
        finisher.fetch(operands, column * N + static_cast<int>(threadIdx.x) % 4 * 8);
        float sums[N / 2];
        for (int step = 0; step < steps; ++step) {
            sm90::barrier_wait(full + stage * 8, phase);
            uint32_t a = stages + stage * L::kStage + group * 64 * Span * 2,
                     b = stages + stage * L::kStage + L::kA * Sub;
            sm90::wgmma_begin();
#pragma unroll
            for (int s = 0; s < Sub; ++s) {
#pragma unroll
                for (int k = 0; k < Span / 16; ++k) {
                    sm90::wgmma<T, N>(sums, sm90::descriptor<Span * 2>(a + s * L::kA + k * 32),
                                      sm90::descriptor<Span * 2>(b + s * L::kB + k * 32),
                                      step > 0 || s > 0 || k > 0);
                }
            }
            sm90::wgmma_commit();
            sm90::wgmma_wait<1>();
            if (previous >= 0 && speaks) sm90::barrier_arrive_at(empty + previous * 8, listener);
            previous = stage;
            if (++stage == L::kStages) {
                stage = 0;
                phase ^= 1;
            }
        }
        sm90::wgmma_wait<0>();
        if (speaks) sm90::barrier_arrive_at(empty + previous * 8, listener);
        finish_tile<T, N>(finisher, operands, sums, column * N, strip);
    }
}

template <class T, int N, int Span, int Sub>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(kThreads, 1)
    implicit_gemm_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap past,
                         const __grid_constant__ CUtensorMap w, const __grid_constant__ Grid g,
                         const __grid_constant__ Ends e) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    using L = Layout<N, Span, Sub>;
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
        if (threadIdx.x == 0) load_tiles<T, N, Span, Sub>(g, &x, &past, &w, base, full, empty, rank);
    } else {
        sm90::take_registers<232>();
        multiply_tiles<T, N, Span, Sub>(g, e, base, full, empty, rank,
                                        reinterpret_cast<float*>(aligned + L::kStages * L::kStage));
    }
    sm90::cluster_sync();  // a block may not end while the other still writes to it or listens to it
#endif
}

}  // namespace sana::cuda::window
