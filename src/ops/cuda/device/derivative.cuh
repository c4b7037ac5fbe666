// What derivative kernels share.
#pragma once

#include <type_traits>

#include "ops/cuda/device/element.cuh"

namespace sana::cuda {

template <class T>
struct Rows {
    const T* data = nullptr;
    int64_t stride = 0;
};
template <class T>
Rows<T> rows_of(const Tensor& x) {
    return {pointer<T>(x), x.row_stride()};
}

// partial [groups, parts, cols] fp32 -> y [groups, cols]: the sum over parts, in order.
void sum_parts(const Tensor& partial, int64_t parts, Tensor& y);

__device__ __forceinline__ float silu_slope(float x) {
    float s = 1 / (1 + __expf(-x));
    return s * (1 + x * (1 - s));
}

// activation'(x)
__device__ __forceinline__ float slope(Activation activation, float x) {
    switch (activation) {
        case Activation::none: return 1.0f;
        case Activation::relu: return x > 0 ? 1.0f : 0.0f;
        case Activation::silu: return silu_slope(x);
        case Activation::gelu_tanh: {
            constexpr float kRoot = 0.7978845608028654f;
            float t = tanhf(kRoot * (x + 0.044715f * x * x * x));
            return (1 + t) / 2 + x * (1 - t * t) / 2 * kRoot * (1 + 3 * 0.044715f * x * x);
        }
    }
    return 1.0f;
}

}  // namespace sana::cuda
