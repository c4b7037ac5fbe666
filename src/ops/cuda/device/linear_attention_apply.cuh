// The last step of linear attention on tensor cores: a warp has 16 tokens, keeps their angles in registers and goes through
// its heads; q~ becomes the A operand in the registers that it was computed in. Bytes: q and y once; the state of every head
// once for kRows tokens, from L2.
#pragma once

#include "ops/cuda/device/linear_attention_mma.cuh"

namespace sana::cuda {

template <int Width, int Terms, int Warps, int Stages, int Blocks>
struct ApplyShape {
    static constexpr int kWidth = Width, kTerms = Terms, kStages = Stages, kBlocks = Blocks;
    static constexpr int kThreads = Warps * 32, kRows = Warps * 16, kPitch = (Width + 8) * 2;
    using State = HeadState<Width, Terms>;
    static constexpr int kState = kRows * kPitch, kStage = kState + static_cast<int>(sizeof(State)),
                         kBytes = Stages * kStage;
};

template <class S>
using Angles = float2[2][S::kWidth / 16][2];

// Four lanes' x[m] for m = 0..3 become lane m's x[c].
__device__ __forceinline__ void transpose_quad(float (&x)[4]) {
#pragma unroll
    for (int bit = 1; bit <= 2; bit *= 2) {
        bool upper = threadIdx.x & bit;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            int low = bit == 1 ? 2 * i : i, high = low + bit;
            float other = __shfl_xor_sync(0xffffffffu, upper ? x[low] : x[high], bit);
            (upper ? x[low] : x[high]) = other;
        }
    }
}

// Angles of tokens g and g + 8 of the warp's 16 from `token` on, of pairs 8 k + c and 8 k + c + 4. Loads are whole vectors, which
// the four lanes of a token then share out: one of a float a lane touches as many rows for a quarter of their bytes.
template <class S, class T>
__device__ __forceinline__ void load_angles(const LinearAttentionProblem<T>& p, int token,
                                            Angles<S>& angles) {
    constexpr int kVectors = S::kWidth / 8;
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        int64_t at = static_cast<int64_t>(min(token + half * 8 + lane / 4, p.tokens - 1)) * (S::kWidth / 2);
#pragma unroll
        for (int first = 0; first < kVectors; first += 4) {
            float cos[4] = {}, sin[4] = {};
            int vector = first + lane % 4;
            if (vector < kVectors) {
                load<4>(p.cos + at + vector * 4, cos);
                load<4>(p.sin + at + vector * 4, sin);
            }
            transpose_quad(cos);
            transpose_quad(sin);
#pragma unroll
            for (int m = 0; m < 4; ++m) {
                int n = first + m;
                if (n < kVectors) angles[half][n / 2][n % 2] = {cos[m], sin[m]};
            }
        }
    }
}

// The A operand of q~ for channels [16 k, 16 k + 16) of a head, of q as load_matrices() gives it, and what they add to this
// lane's part of the normalisers; r: row scales of tokens g and g + 8.
template <class T, int Terms, int Width>
__device__ __forceinline__ void query_features(const uint32_t (&raw)[4], const HeadFactors<Width>& f, int k,
                                               const float (&r)[2], const float2 (&angles)[2][Width / 16][2],
                                               float (&normaliser)[2], uint32_t (&a)[Terms][4]) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        PairFactors factor = f.pairs[k * 8 + e * 4 + threadIdx.x % 4];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float2 x = unpack<T>(raw[2 * e + half]);
            x.x = relu(x.x * r[half] * factor.w0);
            x.y = relu(x.y * r[half] * factor.w1);
            normaliser[half] += x.x * factor.s0;
            normaliser[half] += x.y * factor.s1;
            x = rotated(x.x, x.y, angles[half][k][e].x, angles[half][k][e].y);
            uint32_t terms[Terms];
            split_terms<f16_t, Terms>(x, terms);
#pragma unroll
            for (int t = 0; t < Terms; ++t) a[t][2 * e + half] = terms[t];
        }
    }
}

// A warp's kv q~ of one head, and this lane's part of its normalisers. q and kv: this lane's addresses for matrix loads.
template <class T, class S>
__device__ __forceinline__ void apply_head(uint32_t q, uint32_t kv, const typename S::State& f,
                                           const float (&r)[2], const Angles<S>& angles,
                                           float (&sums)[S::kWidth / 8][4], float (&normaliser)[2]) {
    constexpr int kSteps = S::kWidth / 16;
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
        uint32_t raw[4], a[S::kTerms][4];
        load_matrices(raw, q + k * 32);
        query_features<T, S::kTerms, S::kWidth>(raw, f.factors, k, r, angles, normaliser, a);
#pragma unroll
        for (int n = 0; n < kSteps; ++n) {
            // Of two terms each, the product of the small ones is far below a rounding.
#pragma unroll
            for (int t = 0; t < S::kTerms; ++t) {
                uint32_t b[4];
                load_matrices(b, kv + (t * S::kWidth + n * 16) * S::kPitch + k * 32);
#pragma unroll
                for (int u = 0; u + t < S::kTerms; ++u) {
                    mma<f16_t>(sums[2 * n], a[u], b[0], b[1]);
                    mma<f16_t>(sums[2 * n + 1], a[u], b[2], b[3]);
                }
            }
        }
    }
}

// 1 / normaliser of token g + 8 half, of the parts of four lanes.
__device__ __forceinline__ float inverse_of(float normaliser, float eps) {
    normaliser += __shfl_xor_sync(0xffffffffu, normaliser, 1);
    normaliser += __shfl_xor_sync(0xffffffffu, normaliser, 2);
    return 1 / (normaliser + eps);
}

// Puts a head's y of the warp's 16 rows to `out` in shared memory.
template <class T, class S>
__device__ __forceinline__ void put_head(uint8_t* out, const HeadFactors<S::kWidth>& f,
                                         const float (&sums)[S::kWidth / 8][4],
                                         const float (&normaliser)[2]) {
    int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float inverse = inverse_of(normaliser[half], f.eps);
#pragma unroll
        for (int n = 0; n < S::kWidth / 8; ++n) {
            float2 column = *reinterpret_cast<const float2*>(&f.columns[n * 8 + 2 * c]);
            *reinterpret_cast<uint32_t*>(out + (half * 8 + g) * S::kPitch + n * 16 + c * 4) =
                pack<T>(sums[n][2 * half] * inverse * column.x, sums[n][2 * half + 1] * inverse * column.y);
        }
    }
}

// A block: kRows tokens (blockIdx.x / groups) and a group of `share` heads of sample blockIdx.y.
template <class T, class S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
    apply_mma_kernel(const __grid_constant__ LinearAttentionProblem<T> p, const typename S::State* states,
                     int groups, int share) {
    extern __shared__ __align__(16) uint8_t shared[];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int sample = static_cast<int>(blockIdx.y), first = static_cast<int>(blockIdx.x) / groups * S::kRows;
    int head = static_cast<int>(blockIdx.x) % groups * share, last = min(p.heads, head + share);
    int rows = min(S::kRows, p.tokens - first);
    int64_t first_row = static_cast<int64_t>(sample) * p.tokens + first;
    const T* q = p.q + first_row * p.q_stride;
    uint32_t stages = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    RowCopy<S::kWidth / 8, S::kPitch, S::kThreads> part;
    const auto* state = states + static_cast<int64_t>(sample) * p.heads;
    auto copy = [&](int h, int to) {
        if (h < last) {
            uint32_t stage = stages + to * S::kStage;
            part.template copy<S::kRows>(stage, q + h * S::kWidth, p.q_stride * 2, rows - 1);
            const auto* from = reinterpret_cast<const uint8_t*>(state + h) + threadIdx.x * 16;
            uint32_t at = stage + S::kState + threadIdx.x * 16;
            constexpr int kSize = static_cast<int>(sizeof(typename S::State)), kPass = S::kThreads * 16;
#pragma unroll
            for (int i = 0; i < (kSize + kPass - 1) / kPass; ++i) {
                if (i * kPass + static_cast<int>(threadIdx.x) * 16 < kSize) {
                    copy_async(at + i * kPass, from + i * kPass, true);
                }
            }
        }
        copy_commit();
    };
#pragma unroll
    for (int i = 0; i < S::kStages - 1; ++i) copy(head + i, i);

    // Scales of tokens g and g + 8 of the warp.
    float r[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        int token = min(first + warp * 16 + half * 8 + lane / 4, p.tokens - 1);
        r[half] = p.q_scales[static_cast<int64_t>(sample) * p.tokens + token];
    }
    Angles<S> angles;
    load_angles<S>(p, first + warp * 16, angles);

    uint32_t q_lane = (warp * 16 + lane % 16) * S::kPitch + lane / 16 * 16;
    uint32_t kv_lane = S::kState + (lane / 16 * 8 + lane % 8) * S::kPitch + lane / 8 % 2 * 16;
#pragma unroll 1
    for (int current = 0; head < last; ++head) {
        copy_wait_but<S::kStages - 2>();
        __syncthreads();  // this head is there for all, and all are done with the one that is overwritten now
        copy(head + S::kStages - 1, current == 0 ? S::kStages - 1 : current - 1);
        uint32_t stage = stages + current * S::kStage;
        uint8_t* memory = shared + current * S::kStage;
        current = current + 1 == S::kStages ? 0 : current + 1;
        const auto& f = *reinterpret_cast<const typename S::State*>(memory + S::kState);

        float sums[S::kWidth / 8][4] = {}, normaliser[2] = {};
        apply_head<T, S>(stage + q_lane, stage + kv_lane, f, r, angles, sums, normaliser);
        __syncwarp();  // all of the warp's rows of q are read: y takes their place
        T* y = p.y + (first_row + warp * 16) * p.y_stride + head * S::kWidth;
        uint8_t* out = memory + warp * 16 * S::kPitch;
        put_head<T, S>(out, f.factors, sums, normaliser);
        __syncwarp();
        constexpr int kVectors = S::kWidth / 8;
#pragma unroll
        for (int item = lane; item < 16 * kVectors; item += 32) {
            int row = item / kVectors, vector = item % kVectors;
            if (warp * 16 + row < rows) {
                *reinterpret_cast<uint4*>(y + row * p.y_stride + vector * 8) =
                    *reinterpret_cast<const uint4*>(out + row * S::kPitch + vector * 16);
            }
        }
    }
}

}  // namespace sana::cuda
