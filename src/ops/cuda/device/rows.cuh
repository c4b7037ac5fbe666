// Row by row: a block a row (a warp or part of one where rows are short) reads
// it once into registers as fp32 and hands it to a functor, which may take sums
// and maxima over the row and writes what becomes of it.
#pragma once

#include <cuda_fp8.h>

#include "ops/cuda/device/element.cuh"

namespace sana::cuda {

// Threads that share a row and the vectors that each of them holds; rows longer
// than kMaxVectors * threads * V are read from memory again instead.
constexpr int kMaxVectors = 8;

template <int Threads>
__device__ __forceinline__ float row_sum(float x) {
    if constexpr (Threads <= 32) {
#pragma unroll
        for (int offset = Threads / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
        return x;
    } else {
        return block_sum(x);
    }
}

// The largest of bit patterns (of magnitudes: NaN is above infinity) over the
// threads of a row.
template <int Threads>
__device__ __forceinline__ uint32_t row_max(uint32_t x) {
    if constexpr (Threads < 32) {
#pragma unroll
        for (int offset = Threads / 2; offset > 0; offset /= 2)
            x = max(x, __shfl_xor_sync(0xffffffffu, x, offset));
        return x;
    } else {
#pragma unroll
        for (int offset = 16; offset > 0; offset /= 2) x = max(x, __shfl_xor_sync(0xffffffffu, x, offset));
        if constexpr (Threads > 32) {
            __shared__ uint32_t partial[32];
            __syncthreads();  // an earlier call may still be read
            if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
            __syncthreads();
#pragma unroll
            for (int i = 0; i < Threads / 32; ++i) x = max(x, partial[i]);
        }
        return x;
    }
}

// A row as it is, rounded to T.
template <class T>
struct DenseRows {
    T* y;

    template <int Threads, int V, int K>
    __device__ void operator()(float (&x)[K][V], int count, int64_t row, int64_t cols) const {
#pragma unroll
        for (int k = 0; k < K; ++k) {
            if (k < count)
                store<V>(y + row * cols + (static_cast<int64_t>(k) * Threads + threadIdx.x % Threads) * V,
                         x[k]);
        }
    }
};

// The smallest power of two s with x 2^headroom <= 448 s, for the bits of a magnitude x, and 1/s; 1 for zero, NaN for what
// is not finite.
struct PowerOfTwo {
    float scale, inverse;
};
__device__ __forceinline__ PowerOfTwo power_of_two(uint32_t largest, int headroom = 0) {
    if (largest >= 0x7f800000u) return {__uint_as_float(0x7fc00000u), __uint_as_float(0x7fc00000u)};
    // 448 = 1.75 * 2^8.
    int exponent = static_cast<int>(largest >> 23) - 127 - 8 + ((largest & 0x7fffffu) > 0x600000u ? 1 : 0);
    exponent = largest == 0 ? 0 : max(exponent + headroom, -120);
    return {__uint_as_float(static_cast<uint32_t>(127 + exponent) << 23),
            __uint_as_float(static_cast<uint32_t>(127 - exponent) << 23)};
}

// A row as E4M3 with its scale (ops/fp8.h).
struct Fp8Rows {
    uint8_t* codes;
    float* scale;

    template <int Threads, int V, int K>
    __device__ void operator()(float (&x)[K][V], int count, int64_t row, int64_t cols) const {
        uint32_t largest = 0;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            if (k < count) {
#pragma unroll
                for (int v = 0; v < V; ++v) largest = max(largest, __float_as_uint(x[k][v]) & 0x7fffffffu);
            }
        }
        largest = row_max<Threads>(largest);
        PowerOfTwo power = power_of_two(largest);
        if (threadIdx.x % Threads == 0) scale[row] = power.scale;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            if (k >= count) break;
            Vector<uint8_t, V> out;
#pragma unroll
            for (int v = 0; v < V; ++v)
                out.values[v] = __nv_cvt_float_to_fp8(x[k][v] * power.inverse, __NV_SATFINITE, __NV_E4M3);
            int64_t at = row * cols + (static_cast<int64_t>(k) * Threads + threadIdx.x % Threads) * V;
            *reinterpret_cast<Vector<uint8_t, V>*>(codes + at) = out;
        }
    }
};

template <class T, int Threads, int V, int K, class F>
__global__ void __launch_bounds__(std::max(128, Threads))
    rows_kernel(const T* x, int64_t stride, int64_t rows, int64_t cols, F f) {
    // Threads beyond the last row do it again: they take part in the sums of
    // their warp.
    int64_t row = blockIdx.x * static_cast<int64_t>(blockDim.x / Threads) + threadIdx.x / Threads;
    row = row < rows ? row : rows - 1;
    int lane = static_cast<int>(threadIdx.x) % Threads, count = 0;
    float values[K][V];
#pragma unroll
    for (int k = 0; k < K; ++k) {
        int64_t col = (static_cast<int64_t>(k) * Threads + lane) * V;
        if (col < cols) {
            load<V>(x + row * stride + col, values[k]);
            count = k + 1;
        }
    }
    f.template operator()<Threads, V, K>(values, count, row, cols);
}

template <class T, int Threads, int V, int K, class F>
void launch_rows(const Tensor& x, const F& f) {
    int64_t rows = x.rows();
    constexpr int kBlock = std::max(128, Threads);
    int64_t per_block = kBlock / Threads, blocks = (rows + per_block - 1) / per_block;
    rows_kernel<T, Threads, V, K><<<static_cast<unsigned>(blocks), kBlock, 0, stream_of(x.device())>>>(
        pointer<T>(x), x.row_stride(), rows, x.cols(), f);
}

template <class T, int V, class F>
bool rows_by_width(const Tensor& x, const F& f) {
    int64_t vectors = (x.cols() + V - 1) / V;
    if (vectors <= 8) return launch_rows<T, 8, V, 1>(x, f), true;
    if (vectors <= 16) return launch_rows<T, 16, V, 1>(x, f), true;
    if (vectors <= 32) return launch_rows<T, 32, V, 1>(x, f), true;
    if (vectors <= 64) return launch_rows<T, 32, V, 2>(x, f), true;
    if (vectors <= 128) return launch_rows<T, 32, V, 4>(x, f), true;
    if (vectors <= 256) return launch_rows<T, 128, V, 2>(x, f), true;
    if (vectors <= 384) return launch_rows<T, 128, V, 3>(x, f), true;
    if (vectors <= 512) return launch_rows<T, 128, V, 4>(x, f), true;
    if (vectors <= 640) return launch_rows<T, 128, V, 5>(x, f), true;
    if (vectors <= 1024) return launch_rows<T, 256, V, 4>(x, f), true;
    if (vectors <= 1024 * kMaxVectors) return launch_rows<T, 1024, V, kMaxVectors>(x, f), true;
    return false;
}

// f(values, count, row, cols) for every row of x. vectors: whether what f reads
// and writes beside x has aligned vectors.
template <class T, class F>
void for_rows(const char* op, const Tensor& x, bool vectors, const F& f) {
    if (x.numel() == 0) return;
    vectors = vectors && vectors_fit(x);
    bool done = vectors ? rows_by_width<T, kLanes<T>>(x, f) : rows_by_width<T, 1>(x, f);
    check(done, op, ": rows of ", x.cols(), " elements are longer than the CUDA kernel's limit of ",
          1024 * kMaxVectors * (vectors ? kLanes<T> : 1));
    check_launch(op, x.device());
}

}  // namespace sana::cuda
