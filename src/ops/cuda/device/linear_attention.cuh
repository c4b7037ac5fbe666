// What the kernels of linear attention share: the problem as they see it, and their order.
//   1. scales   r = 1 / sqrt(mean(x^2) + eps) of every row of q and of k, over all heads
//   2. state    partial sums of v k~^T and k' over a range of tokens, for every head and range
//   3. reduce   kv and k_sum: the ranges in order, and the past, so that equal inputs give equal bits
//   4. apply    y = kv q~ / (q' . k_sum + eps)
#pragma once

#include "ops/cuda/device/element.cuh"
#include "ops/linear_attention.h"

namespace sana::cuda {

template <class T>
struct LinearAttentionProblem {
    const T *q, *k, *v;
    T* y;
    int64_t q_stride, k_stride, v_stride, y_stride;
    const T *q_weight, *k_weight;       // [C]
    const float *q_scales, *k_scales;   // [B*N]
    const float *cos, *sin;             // [N,D/2]
    const float *past_kv, *past_k_sum;  // null: none
    float *kv, *k_sum;                  // [B*A,D,D], [B*A,D]
    int samples, tokens, heads, width;  // B, N, A, D
    float eps;

    __host__ __device__ int channels() const { return heads * width; }
};

// Ranges of tokens whose sums are made by different blocks. partial: [ranges][B*A][D*D] and [ranges][B*A][D].
struct TokenRanges {
    int count, length;
    float *kv, *k_sum;
};

__device__ __forceinline__ float relu(float x) {
    float y;
    asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(y) : "f"(x));  // fmaxf() would drop NaN
    return y;
}

// An even and an odd channel, turned by the angle of their pair.
__device__ __forceinline__ float2 rotated(float even, float odd, float cos, float sin) {
    return {even * cos - odd * sin, even * sin + odd * cos};
}

// 1 / rms of the rows of k (tensors: 1), or of q and of k (2): [tensors, rows] (linear_attention.cu).
template <class T>
Tensor row_scales(const Tensor& q, const Tensor& k, float eps, unsigned tensors);

// Where y goes as E4M3 (ops/linear_attention_fp8.h): rows of C codes and their scales. q's norm is then made on the way.
struct LinearAttentionCodes {
    uint8_t* codes = nullptr;
    float* scale = nullptr;
    float norm_eps = 0;
};

// Tensor core kernels (linear_attention_mma.cu) for steps 2 to 4. False when they do not take the problem: they need rows
// in 16-byte vectors and heads of one of the widths that they are compiled for.
template <class T>
bool linear_attention_by_mma(const LinearAttentionProblem<T>& p, bool exact_state, Device device,
                             const LinearAttentionCodes& to = {});
// Whether they take it with y as codes.
bool linear_attention_makes_codes(const LinearAttentionProblem<bf16_t>& p, Device device,
                                  const LinearAttentionCodes& to);

}  // namespace sana::cuda
