// The state of linear attention on tensor cores: a block has one range of tokens and kHeads heads, a warp 16 channels of k~ by
// all of v. k and v pass through shared memory; a warp turns its 16 channels of 16 tokens into features in registers and
// transposes them there: nothing is computed twice. Bytes: k and v once, the rope tables once for kHeads heads (from L2).
// FLOPs 2*B*N*C*D a term.
#pragma once

#include "ops/cuda/device/linear_attention_mma.cuh"

namespace sana::cuda {

// This lane's weights of 16 channels of k: 2c, 2c + 1, 2c + 8, 2c + 9 behind `first`, times the slab's scale. A feature is at
// most sqrt(C) times its weight.
struct SlabWeights {
    float of[4] = {};
    float scale;

    // first < 0: no channels.
    template <class T>
    __device__ __forceinline__ SlabWeights(const LinearAttentionProblem<T>& p, int first) {
        float largest = 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int channel = first + i / 2 * 8 + 2 * static_cast<int>(threadIdx.x % 4) + i % 2;
            if (first >= 0) of[i] = to_float(p.k_weight[channel]);
            largest = fmaxf(largest, fabsf(of[i]));
        }
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
        scale = scale_to_half(largest * sqrtf(static_cast<float>(p.channels())));
#pragma unroll
        for (int i = 0; i < 4; ++i) of[i] *= scale;
    }
};

// The A operands of k~^T: 16 channels by 16 tokens, of k as load_matrices() gives it; r: row scales of tokens g and g + 8;
// turn(half, e): cos and sin of token g + 8 half and pair c + 4 e of the slab.
template <class T, int Terms, class Turn>
__device__ __forceinline__ void key_features(const uint32_t (&k)[4], const float (&r)[2],
                                             const float (&weight)[4], float (&k_sum)[4],
                                             uint32_t (&a)[Terms][4], Turn turn) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {  // tokens g and g + 8
#pragma unroll
        for (int e = 0; e < 2; ++e) {  // channels 2c and 2c + 8, and the next ones
            float2 x = unpack<T>(k[2 * e + half]), angle = turn(half, e);
            x.x = relu(x.x * r[half] * weight[2 * e]);
            x.y = relu(x.y * r[half] * weight[2 * e + 1]);
            k_sum[2 * e] += x.x;
            k_sum[2 * e + 1] += x.y;
            x = rotated(x.x, x.y, angle.x, angle.y);
            uint32_t terms[Terms];
            split_terms<T, Terms>(x, terms);
#pragma unroll
            for (int t = 0; t < Terms; ++t) a[t][2 * half + e] = transposed(terms[t]);
        }
    }
}

// A range's sums of 16 channels of k~, [k~ channel][v channel] (reduce turns it over), and of k.
template <int Width>
__device__ __forceinline__ void put_slab(const TokenRanges& ranges, int64_t slot, int slab,
                                         const float (&sums)[Width / 8][4], float (&k_sum)[4],
                                         float unscale) {
    int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
    float* kv = ranges.kv + (slot * Width + slab * 16 + g) * Width + 2 * c;
#pragma unroll
    for (int n = 0; n < Width / 8; ++n) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float2 pair{sums[n][2 * half] * unscale, sums[n][2 * half + 1] * unscale};
            *reinterpret_cast<float2*>(kv + half * 8 * Width + n * 8) = pair;
        }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int offset = 4; offset < 32; offset *= 2) {
            k_sum[i] += __shfl_xor_sync(0xffffffffu, k_sum[i], offset);
        }
        if (g == 0) ranges.k_sum[slot * Width + slab * 16 + i / 2 * 8 + 2 * c + i % 2] = k_sum[i] * unscale;
    }
}

template <int Width, int Heads, int Stages, int Blocks>
struct StateShape {
    static constexpr int kWidth = Width, kHeads = Heads, kTile = 32, kStages = Stages, kBlocks = Blocks;
    static constexpr int kSlabs = Width / 16, kThreads = Heads * kSlabs * 32;
    static constexpr int kPitch = (Heads * Width + 8) * 2;  // bytes of a row of k or v
    static constexpr int kAngles = Width / 2,
                         kAnglePitch = (kAngles + 4) * 4;  // bytes of a row of cos or sin
    static constexpr int kRows = kTile * kPitch, kTables = kTile * kAnglePitch;  // bytes of one tensor's tile
    static constexpr int kStage = 2 * kRows + 2 * kTables, kBytes = Stages * kStage;
    static_assert(Width % 16 == 0 && kThreads <= 1024);
};

template <class T, class S>
struct StateTile {
    const LinearAttentionProblem<T>& p;
    const T *k, *v;  // the sample's first token, the block's first head
    int columns;     // of the heads that exist
    int end;         // of the range
    RowCopy<S::kHeads * S::kWidth / 8, S::kPitch, S::kThreads> rows = {};
    RowCopy<S::kAngles / 4, S::kAnglePitch, S::kThreads> angles = {};

    __device__ __forceinline__ void copy(int first, uint32_t stage) const {
        if (first < end) {
            int last = end - 1 - first;
            if (rows.vector * 8 < columns) {
                rows.template copy<S::kTile>(stage, k + first * p.k_stride, p.k_stride * 2, last);
                rows.template copy<S::kTile>(stage + S::kRows, v + first * p.v_stride, p.v_stride * 2, last);
            }
            int64_t at = static_cast<int64_t>(first) * S::kAngles;
            uint32_t tables = stage + 2 * S::kRows;
            angles.template copy<S::kTile>(tables, p.cos + at, S::kAngles * 4, last);
            angles.template copy<S::kTile>(tables + S::kTables, p.sin + at, S::kAngles * 4, last);
        }
        copy_commit();
    }
};

template <class T, class S, int Terms>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
    state_mma_kernel(const __grid_constant__ LinearAttentionProblem<T> p, TokenRanges ranges) {
    extern __shared__ __align__(16) uint8_t shared[];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
    int groups = (p.heads + S::kHeads - 1) / S::kHeads;
    int sample = static_cast<int>(blockIdx.x) / groups,
        first_head = static_cast<int>(blockIdx.x) % groups * S::kHeads;
    int slab = warp % S::kSlabs, head = first_head + warp / S::kSlabs;
    bool exists = head < p.heads;
    int start = static_cast<int>(blockIdx.y) * ranges.length, end = min(p.tokens, start + ranges.length);
    int64_t row = static_cast<int64_t>(sample) * p.tokens;
    StateTile<T, S> tile{p, p.k + row * p.k_stride + first_head * S::kWidth,
                         p.v + row * p.v_stride + first_head * S::kWidth,
                         min(S::kHeads, p.heads - first_head) * S::kWidth, end};
    uint32_t stages = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
#pragma unroll
    for (int i = 0; i < S::kStages - 1; ++i) tile.copy(start + i * S::kTile, stages + i * S::kStage);

    SlabWeights weights(p, exists ? head * S::kWidth + slab * 16 : -1);

    float sums[S::kWidth / 8][4] = {}, k_sum[4] = {};
    auto row_scale = [&](int first) {
        int token = first + lane;
        return token < end ? p.k_scales[row + token] : 0.0f;
    };
    float next_scale = row_scale(start);
    uint32_t column = (warp / S::kSlabs * S::kWidth + slab * 16) * 2;
    uint32_t k_lane = lane % 16 * S::kPitch + lane / 16 * 16 + column;
    uint32_t v_lane = S::kRows + lane % 16 * S::kPitch + lane / 16 * 16 + warp / S::kSlabs * S::kWidth * 2;
    int angle_lane = (2 * S::kRows + g * S::kAnglePitch) / 4 + slab * 8 + c;
#pragma unroll 1
    for (int first = start, current = 0; first < end; first += S::kTile) {
        float scales = next_scale;
        next_scale = row_scale(first + S::kTile);
        copy_wait_but<S::kStages - 2>();
        __syncthreads();  // the tile is there for all, and all are done with the one that is overwritten now
        int ahead = current == 0 ? S::kStages - 1 : current - 1;
        tile.copy(first + (S::kStages - 1) * S::kTile, stages + ahead * S::kStage);
        uint32_t stage = stages + current * S::kStage;
        const float* angles = reinterpret_cast<const float*>(shared + current * S::kStage) + angle_lane;
        current = current + 1 == S::kStages ? 0 : current + 1;
#pragma unroll
        for (int step = 0; step < S::kTile / 16; ++step) {
            uint32_t k[4], a[Terms][4];
            float r[2];
            load_matrices(k, stage + k_lane + step * 16 * S::kPitch);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                r[half] = __shfl_sync(0xffffffffu, scales, step * 16 + half * 8 + g);
            }
            key_features<T, Terms>(k, r, weights.of, k_sum, a, [&](int half, int e) {
                const float* turn = angles + (step * 16 + half * 8) * S::kAnglePitch / 4 + e * 4;
                return float2{turn[0], turn[S::kTables / 4]};
            });
#pragma unroll
            for (int n = 0; n < S::kWidth / 16; ++n) {
                uint32_t b[4];
                load_matrices_transposed(b, stage + v_lane + step * 16 * S::kPitch + n * 32);
#pragma unroll
                for (int t = 0; t < Terms; ++t) {
                    mma<T>(sums[2 * n], a[t], b[0], b[1]);
                    mma<T>(sums[2 * n + 1], a[t], b[2], b[3]);
                }
            }
        }
    }
    if (exists) {
        int64_t slot = (static_cast<int64_t>(blockIdx.y) * p.samples + sample) * p.heads + head;
        put_slab<S::kWidth>(ranges, slot, slab, sums, k_sum, 1 / weights.scale);
    }
}

}  // namespace sana::cuda
