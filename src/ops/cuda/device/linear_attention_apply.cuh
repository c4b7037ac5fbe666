// The last step of linear attention on tensor cores: a warp has 16 tokens, keeps their angles in registers and goes through
// its heads; q~ becomes the A operand in the registers that it was computed in. Bytes: q and y once; the state of every head
// once for kRows tokens, from L2.
#pragma once

#include "ops/cuda/device/linear_attention_mma.cuh"

namespace sana::cuda {

template <int Width, int Terms, int Warps, int Stages>
struct ApplyShape {
    static constexpr int kWidth = Width, kTerms = Terms, kStages = Stages;
    static constexpr int kThreads = Warps * 32, kRows = Warps * 16, kPitch = (Width + 8) * 2;
    static constexpr int kState = kRows * kPitch, kFactors = kState + Terms * Width * kPitch;  // in a stage
    static constexpr int kStage = kFactors + static_cast<int>(sizeof(HeadFactors<Width>)),
                         kBytes = Stages * kStage;
};

template <class S, class T>
__device__ __forceinline__ void copy_head(uint32_t stage, const T* q, int64_t q_stride, int rows,
                                          const HeadState<S::kWidth, S::kTerms>* state,
                                          const HeadFactors<S::kWidth>* factors) {
    constexpr int kVectors = S::kWidth / 8;
    for (int item = threadIdx.x; item < S::kRows * kVectors; item += S::kThreads) {
        int row = item / kVectors, vector = item % kVectors;
        bool there = row < rows;
        copy_async(stage + row * S::kPitch + vector * 16,
                   q + static_cast<int64_t>(there ? row : 0) * q_stride + vector * 8, there);
    }
    const f16_t* kv = &state->kv[0][0][0];
    for (int item = threadIdx.x; item < S::kTerms * S::kWidth * kVectors; item += S::kThreads) {
        int row = item / kVectors, vector = item % kVectors;
        copy_async(stage + S::kState + row * S::kPitch + vector * 16, kv + row * S::kWidth + vector * 8,
                   true);
    }
    for (int item = threadIdx.x; item < static_cast<int>(sizeof(*factors) / 16); item += S::kThreads) {
        copy_async(stage + S::kFactors + item * 16, reinterpret_cast<const uint8_t*>(factors) + item * 16,
                   true);
    }
}

// A block: kRows tokens (blockIdx.x / groups) and a group of `share` heads of sample blockIdx.y.
template <class T, class S>
__global__ void __launch_bounds__(S::kThreads, 1)
    apply_mma_kernel(const __grid_constant__ LinearAttentionProblem<T> p,
                     const HeadState<S::kWidth, S::kTerms>* states, const HeadFactors<S::kWidth>* factors,
                     int groups, int share) {
    extern __shared__ __align__(16) uint8_t shared[];
    constexpr int kSteps = S::kWidth / 16;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
    int sample = static_cast<int>(blockIdx.y), first = static_cast<int>(blockIdx.x) / groups * S::kRows;
    int head = static_cast<int>(blockIdx.x) % groups * share, last = min(p.heads, head + share);
    int rows = min(S::kRows, p.tokens - first);
    int64_t first_row = static_cast<int64_t>(sample) * p.tokens + first;
    const T* q = p.q + first_row * p.q_stride;
    uint32_t stages = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    auto copy = [&](int h, int stage) {
        if (h < last) {
            int64_t at = static_cast<int64_t>(sample) * p.heads + h;
            copy_head<S>(stages + stage * S::kStage, q + h * S::kWidth, p.q_stride, rows, states + at,
                         factors + at);
        }
        copy_commit();
    };
#pragma unroll
    for (int s = 0; s < S::kStages - 1; ++s) copy(head + s, s);

    // Of tokens g and g + 8 of the warp: their scales, and their angles of pairs 8 k + c and 8 k + c + 4.
    float r[2];
    float2 angles[2][kSteps][2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        int token = min(first + warp * 16 + half * 8 + g, p.tokens - 1);
        r[half] = p.q_scales[static_cast<int64_t>(sample) * p.tokens + token];
        int64_t at = static_cast<int64_t>(token) * (S::kWidth / 2) + c;
#pragma unroll
        for (int k = 0; k < kSteps; ++k) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                angles[half][k][e] = {p.cos[at + k * 8 + e * 4], p.sin[at + k * 8 + e * 4]};
            }
        }
    }

    uint32_t q_lane = (warp * 16 + lane % 16) * S::kPitch + lane / 16 * 16;
    uint32_t kv_lane = S::kState + (lane / 16 * 8 + lane % 8) * S::kPitch + lane / 8 % 2 * 16;
    int current = 0;
#pragma unroll 1
    for (; head < last; ++head) {
        copy_wait_but<S::kStages - 2>();
        __syncthreads();  // this head is there for all, and all are done with the one that is overwritten now
        copy(head + S::kStages - 1, current == 0 ? S::kStages - 1 : current - 1);
        uint32_t stage = stages + current * S::kStage;
        uint8_t* memory = shared + current * S::kStage;
        const auto& f = *reinterpret_cast<const HeadFactors<S::kWidth>*>(memory + S::kFactors);

        float sums[S::kWidth / 8][4] = {}, normaliser[2] = {};
#pragma unroll
        for (int k = 0; k < kSteps; ++k) {
            uint32_t raw[4], a[S::kTerms][4];
            load_matrices(raw, stage + q_lane + k * 32);
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                PairFactors factor = f.pairs[k * 8 + e * 4 + c];
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float2 x = unpack<T>(raw[2 * e + half]);
                    x.x = relu(x.x * r[half] * factor.w0);
                    x.y = relu(x.y * r[half] * factor.w1);
                    normaliser[half] += x.x * factor.s0;
                    normaliser[half] += x.y * factor.s1;
                    x = rotated(x.x, x.y, angles[half][k][e].x, angles[half][k][e].y);
                    uint32_t terms[S::kTerms];
                    split_terms<f16_t, S::kTerms>(x, terms);
#pragma unroll
                    for (int t = 0; t < S::kTerms; ++t) a[t][2 * e + half] = terms[t];
                }
            }
#pragma unroll
            for (int n = 0; n < kSteps; ++n) {
                // Of two terms each, the product of the small ones is far below a rounding.
#pragma unroll
                for (int t = 0; t < S::kTerms; ++t) {
                    uint32_t b[4];
                    load_matrices(b, stage + kv_lane + (t * S::kWidth + n * 16) * S::kPitch + k * 32);
#pragma unroll
                    for (int u = 0; u + t < S::kTerms; ++u) {
                        mma<f16_t>(sums[2 * n], a[u], b[0], b[1]);
                        mma<f16_t>(sums[2 * n + 1], a[u], b[2], b[3]);
                    }
                }
            }
        }

        __syncwarp();  // all of the warp's rows of q are read: y takes their place
        T* y = p.y + (first_row + warp * 16) * p.y_stride + head * S::kWidth;
        uint8_t* out = memory + warp * 16 * S::kPitch;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float total = normaliser[half];
            total += __shfl_xor_sync(0xffffffffu, total, 1);
            total += __shfl_xor_sync(0xffffffffu, total, 2);
            float inverse = 1 / (total + f.eps);
#pragma unroll
            for (int n = 0; n < S::kWidth / 8; ++n) {
                float2 column = *reinterpret_cast<const float2*>(&f.columns[n * 8 + 2 * c]);
                *reinterpret_cast<uint32_t*>(out + (half * 8 + g) * S::kPitch + n * 16 + c * 4) = pack<T>(
                    sums[n][2 * half] * inverse * column.x, sums[n][2 * half + 1] * inverse * column.y);
            }
        }
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
        current = current + 1 == S::kStages ? 0 : current + 1;
    }
    copy_wait();
}

}  // namespace sana::cuda
