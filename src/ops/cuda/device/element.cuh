// Elements in device memory and the floats that kernels compute with.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "core/cuda/stream.h"
#include "core/tensor.h"
#include "ops/linear.h"

namespace sana::cuda {

using bf16_t = __nv_bfloat16;
using f16_t = __half;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16_t x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(f16_t x) { return __half2float(x); }

template <class T>
__device__ __forceinline__ T from_float(float x) {
    if constexpr (std::is_same_v<T, bf16_t>) {
        return __float2bfloat16_rn(x);
    } else if constexpr (std::is_same_v<T, f16_t>) {
        return __float2half_rn(x);
    } else {
        return x;
    }
}

// Calls f.operator()<T>() for the device type of a dtype that CUDA kernels compute in.
template <class F>
void dispatch_cuda(const char* op, DType dtype, F&& f) {
    switch (dtype) {
        case DType::F32: return f.template operator()<float>();
        case DType::BF16: return f.template operator()<bf16_t>();
        case DType::F16: return f.template operator()<f16_t>();
        default:
            fail(op, ": dtype ", dtype, " is not one that the CUDA device computes in (fp32, bf16, fp16)");
    }
}

template <class T>
T* pointer(const Tensor& x) {
    return static_cast<T*>(x.raw());
}

// N elements that are loaded and stored at once; N * sizeof(T) a power of two, at most 16 bytes, and aligned to it.
template <class T, int N>
struct alignas(sizeof(T) * N) Vector {
    T values[N];
};

template <int N, class T>
__device__ __forceinline__ void load(const T* p, float (&out)[N]) {
    Vector<T, N> v = *reinterpret_cast<const Vector<T, N>*>(p);
#pragma unroll
    for (int i = 0; i < N; ++i) out[i] = to_float(v.values[i]);
}

template <int N, class T>
__device__ __forceinline__ void store(T* p, const float (&in)[N]) {
    Vector<T, N> v;
#pragma unroll
    for (int i = 0; i < N; ++i) v.values[i] = from_float<T>(in[i]);
    *reinterpret_cast<Vector<T, N>*>(p) = v;
}

// Elements of a 16-byte vector.
template <class T>
constexpr int kLanes = 16 / static_cast<int>(sizeof(T));

// Whether rows of x can be read in 16-byte vectors.
inline bool vectors_fit(const Tensor& x) {
    int64_t lanes = 16 / size_of(x.dtype());
    return reinterpret_cast<uintptr_t>(x.raw()) % 16 == 0 && x.row_stride() % lanes == 0 &&
           x.cols() % lanes == 0;
}

__device__ __forceinline__ float gelu_tanh(float x) {
    return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}
__device__ __forceinline__ float silu(float x) { return x / (1.0f + __expf(-x)); }

__device__ __forceinline__ float activated(float x, Activation activation) {
    switch (activation) {
        case Activation::none: return x;
        case Activation::relu: return x < 0 ? 0.0f : x;  // keeps NaN
        case Activation::silu: return silu(x);
        case Activation::gelu_tanh: return gelu_tanh(x);
    }
    return x;
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

// The sum over all threads of a block (a multiple of 32, at most 1024), for every thread. All threads must call it.
__device__ __forceinline__ float block_sum(float x) {
    __shared__ float partial[32];
    x = warp_sum(x);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    __syncthreads();  // an earlier call may still be read
    if (lane == 0) partial[warp] = x;
    __syncthreads();
    float y = lane < (blockDim.x + 31) / 32 ? partial[lane] : 0.0f;
    return warp_sum(y);
}

// Blocks of `threads` for a loop over `count` items with the grid as its stride.
inline unsigned grid_for(int64_t count, int threads) {
    return static_cast<unsigned>(std::clamp<int64_t>((count + threads - 1) / threads, 1, 132 * 32));
}

}  // namespace sana::cuda
