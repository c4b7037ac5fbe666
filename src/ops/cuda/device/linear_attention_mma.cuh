// What the tensor core kernels of linear attention share: numbers in the range of 16-bit types, and what reduce leaves for
// apply.
#pragma once

#include "ops/cuda/device/linear_attention.cuh"
#include "ops/cuda/device/mma.cuh"

namespace sana::cuda {

constexpr int kMaxExponent =
    14;  // scaled features and states stay below 2^15, so that fp16 holds their rotation

// The power of two that brings numbers of up to `largest` just below 2^kMaxExponent; 1 where there is none.
__device__ __forceinline__ float scale_to_range(float largest) {
    if (!(largest > 0) || largest == INFINITY) return 1.0f;
    int exponent = min(max(kMaxExponent - 1 - ilogbf(largest), -126), 126);
    return __int_as_float((exponent + 127) << 23);
}

// Turns two features into `Terms` pairs of T that add up to them.
template <class T, int Terms>
__device__ __forceinline__ void split_terms(float2 x, uint32_t (&terms)[Terms]) {
#pragma unroll
    for (int t = 0; t < Terms; ++t) {
        terms[t] = pack<T>(x.x, x.y);
        float2 rounded = unpack<T>(terms[t]);
        x.x -= rounded.x;
        x.y -= rounded.y;
    }
}

// What apply needs of a head beside the state, in one piece of memory: for every pair of channels the scaled weights of
// q's norm and the sums of k; then the factors of y's columns; then eps in the scale of the weights.
struct alignas(16) PairFactors {
    float w0, w1, s0, s1;
};

template <int Width>
struct HeadFactors {
    PairFactors pairs[Width / 2];
    float columns[Width];
    float eps, unused[3];
};

// One row of a state: kv rounded to `Terms` terms of fp16.
template <int Width, int Terms>
struct HeadState {
    f16_t kv[Terms][Width][Width];  // [v channel][k~ channel], times 1 / HeadFactors::columns
};

}  // namespace sana::cuda
