// Row by row: a block a row (a warp or part of one where rows are short) reads it once into registers as fp32 and hands it to
// a functor, which may take sums and maxima over the row and writes what becomes of it.
#pragma once

#include <cuda_fp8.h>

#include <limits>

#include "ops/cuda/device/element.cuh"

namespace sana::cuda {

// The floats of a vector. Those of bf16 are halves of words that lack the other half: one instruction each.
template <class T, int V>
__device__ __forceinline__ void unpack(const Vector<T, V>& packed, float (&out)[V]) {
    if constexpr (std::is_same_v<T, bf16_t> && V % 2 == 0) {
        const auto& words = reinterpret_cast<const Vector<uint32_t, V / 2>&>(packed);
#pragma unroll
        for (int v = 0; v < V; v += 2) {
            out[v] = __uint_as_float(words.values[v / 2] << 16);
            out[v + 1] = __uint_as_float(words.values[v / 2] & 0xffff0000u);
        }
    } else {
#pragma unroll
        for (int v = 0; v < V; ++v) out[v] = to_float(packed.values[v]);
    }
}

// Division of what is below 2^31 by d > 0, as one product: 2^shift / d, rounded up, is too much by less than one, and 2^31
// times that is less than what lies between quotients, 2^shift / d.
struct Divisor {
    uint32_t factor;
    int shift;

    explicit Divisor(int64_t d) : shift(31) {
        while (int64_t{1} << (shift - 31) < d) ++shift;
        factor = static_cast<uint32_t>(((uint64_t{1} << shift) + static_cast<uint64_t>(d) - 1) /
                                       static_cast<uint64_t>(d));
    }
    __device__ int quotient(int n) const {
        return static_cast<int>(static_cast<uint64_t>(n) * factor >> shift);
    }
};

// A thread's part of a row: up to K vectors of V elements, kStep elements from one to the next. Every thread has the first
// Full of them, which need no test.
template <int Threads, int V_, int K_, int Full>
struct Row {
    static constexpr int V = V_, K = K_, kStep = Threads * V;
    static constexpr int kBlock = Threads < 96 ? 128 : Threads, kTogether = kBlock / Threads;
    int index, cols;
    int first;     // column of the thread's first element
    int turn = 0;  // of the buffers in shared memory

    __device__ bool has(int k) const { return k < Full || first + k * kStep < cols; }

    // f(k) for the thread's vectors.
    template <class F>
    __device__ void vectors(F f) const {
#pragma unroll
        for (int k = 0; k < K; ++k) {
            if (has(k)) f(k);
        }
    }

    // f(k, v) for its elements.
    template <class F>
    __device__ void elements(F f) const {
        vectors([&](int k) {
#pragma unroll
            for (int v = 0; v < V; ++v) f(k, v);
        });
    }

    // The thread's vectors of a row that begins at p. In place of one that it has not it reads the row's first: a branch would
    // wait for those before it.
    template <class T>
    __device__ void load(const T* p, Vector<T, V> (&out)[K]) const {
        p += first;
#pragma unroll
        for (int k = 0; k < K; ++k)
            out[k] = *reinterpret_cast<const Vector<T, V>*>(p + (has(k) ? k * kStep : -first));
    }

    // The sums over the row, for all of its threads, which must all call it; several at once cost one exchange.
    template <int N>
    __device__ void sum(float (&x)[N]) {
        constexpr int kLanes = std::min(Threads, 32);
#pragma unroll
        for (int offset = kLanes / 2; offset > 0; offset /= 2) {
#pragma unroll
            for (int i = 0; i < N; ++i) x[i] += __shfl_xor_sync(0xffffffffu, x[i], offset);
        }
        over_warps(x, [](float a, float b) { return a + b; });
    }
    __device__ float sum(float x) {
        float one[1] = {x};
        sum(one);
        return one[0];
    }

    // The largest of bit patterns (of magnitudes: NaN is above infinity), likewise.
    __device__ uint32_t max(uint32_t x) {
        if constexpr (Threads < 32) {
#pragma unroll
            for (int offset = Threads / 2; offset > 0; offset /= 2)
                x = std::max(x, __shfl_xor_sync(0xffffffffu, x, offset));
            return x;
        } else {
            uint32_t one[1] = {__reduce_max_sync(0xffffffffu, x)};
            over_warps(one, [](uint32_t a, uint32_t b) { return std::max(a, b); });
            return one[0];
        }
    }

private:
    // Two buffers by turns need one barrier: who writes to the first again has met all others at the second's, behind their
    // reading of the first.
    template <int N, class X, class Join>
    __device__ void over_warps(X (&x)[N], Join join) {
        if constexpr (Threads > 32) {
            __shared__ alignas(16) X partial[2][Threads / 32][N];
            X(&parts)[Threads / 32][N] = partial[turn];
            turn ^= 1;
#pragma unroll
            for (int i = 0; i < N; ++i) {
                if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32][i] = x[i];
            }
            __syncthreads();
#pragma unroll
            for (int i = 0; i < N; ++i) {
                x[i] = parts[0][i];
#pragma unroll
                for (int warp = 1; warp < Threads / 32; ++warp) x[i] = join(x[i], parts[warp][i]);
            }
        }
    }
};

// A row as it is, rounded to T.
template <class T>
struct DenseRows {
    T* y;

    template <class R>
    __device__ void operator()(R& row, float (&x)[R::K][R::V]) const {
        T* out = y + static_cast<int64_t>(row.index) * row.cols + row.first;
        row.vectors([&](int k) { store<R::V>(out + k * R::kStep, x[k]); });
    }
};

// The larger of a and |b|; NaN is above all.
__device__ __forceinline__ float larger_magnitude(float a, float b) {
    float y;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(fabsf(b)));
    return y;
}

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

    template <class R>
    __device__ void operator()(R& row, float (&x)[R::K][R::V]) const {
        constexpr int V = R::V;
        float magnitude = 0;
        row.elements([&](int k, int v) { magnitude = larger_magnitude(magnitude, x[k][v]); });
        PowerOfTwo power = power_of_two(row.max(__float_as_uint(magnitude)));
        if (row.first == 0) scale[row.index] = power.scale;
        uint8_t* out = codes + static_cast<int64_t>(row.index) * row.cols + row.first;
        row.vectors([&](int k) {
            if constexpr (V == 1) {
                out[k * R::kStep] = __nv_cvt_float_to_fp8(x[k][0] * power.inverse, __NV_SATFINITE, __NV_E4M3);
            } else {
                Vector<uint16_t, V / 2> pairs;
#pragma unroll
                for (int v = 0; v < V; v += 2)
                    pairs.values[v / 2] = __nv_cvt_float2_to_fp8x2(
                        {x[k][v] * power.inverse, x[k][v + 1] * power.inverse}, __NV_SATFINITE, __NV_E4M3);
                *reinterpret_cast<Vector<uint16_t, V / 2>*>(out + k * R::kStep) = pairs;
            }
        });
    }
};

template <class T, class R, class F>
__global__ void __launch_bounds__(R::kBlock)
    rows_kernel(const T* x, int64_t stride, int rows, int cols, F f) {
    R row{static_cast<int>(blockIdx.x), cols, static_cast<int>(threadIdx.x) * R::V};
    if constexpr (R::kTogether > 1) {
        // Threads beyond the last row do it again: they take part in the sums of their warp.
        constexpr int kThreads = R::kBlock / R::kTogether;
        int thread = static_cast<int>(threadIdx.x);
        row.index = std::min(row.index * R::kTogether + thread / kThreads, rows - 1);
        row.first = thread % kThreads * R::V;
    }
    Vector<T, R::V> parts[R::K];
    row.load(x + row.index * stride, parts);
    float values[R::K][R::V];
#pragma unroll
    for (int k = 0; k < R::K; ++k) unpack(parts[k], values[k]);
    f(row, values);
}

template <class T, int Threads, int V, int K, int Full, class F>
bool launch_rows(const Tensor& x, const F& f) {
    using R = Row<Threads, V, K, Full>;
    int64_t rows = x.rows(), per_block = R::kTogether;
    rows_kernel<T, R>
        <<<static_cast<unsigned>((rows + per_block - 1) / per_block), R::kBlock, 0, stream_of(x.device())>>>(
            pointer<T>(x), x.row_stride(), static_cast<int>(rows), static_cast<int>(x.cols()), f);
    return true;
}

// The widest rows that threads hold, in vectors.
constexpr int64_t kMostVectors = 1024 * 8;

template <class T, int V, class F>
bool rows_by_width(const Tensor& x, const F& f) {
    // The last number: how many vectors of a thread are always there in rows beyond the line above.
    int64_t vectors = (x.cols() + V - 1) / V;
    if (vectors <= 8) return launch_rows<T, 8, V, 1, 0>(x, f);
    if (vectors <= 16) return launch_rows<T, 16, V, 1, 0>(x, f);
    if (vectors <= 32) return launch_rows<T, 32, V, 1, 0>(x, f);
    if (vectors <= 64) return launch_rows<T, 32, V, 2, 1>(x, f);
    if (vectors <= 128) return launch_rows<T, 32, V, 4, 2>(x, f);
    if (vectors <= 256) return launch_rows<T, 128, V, 2, 1>(x, f);
    if (vectors <= 288) return launch_rows<T, 96, V, 3, 2>(x, f);
    if (vectors <= 384) return launch_rows<T, 128, V, 3, 2>(x, f);
    if (vectors <= 512) return launch_rows<T, 128, V, 4, 3>(x, f);
    if (vectors <= 576) return launch_rows<T, 192, V, 3, 2>(x, f);
    if (vectors <= 1024) return launch_rows<T, 256, V, 4, 2>(x, f);
    if (vectors <= kMostVectors) return launch_rows<T, 1024, V, 8, 1>(x, f);
    return false;
}

// f(row, values) for every row of x. vectors: whether what f reads and writes beside x has aligned vectors.
template <class T, class F>
void for_rows(const char* op, const Tensor& x, bool vectors, const F& f) {
    if (x.numel() == 0) return;
    vectors = vectors && vectors_fit(x);
    check(x.rows() <= std::numeric_limits<int>::max(), op, ": ", x.rows(),
          " rows are more than the CUDA kernel's limit");
    bool done = vectors ? rows_by_width<T, kLanes<T>>(x, f) : rows_by_width<T, 1>(x, f);
    check(done, op, ": rows of ", x.cols(), " elements are longer than the CUDA kernel's limit of ",
          kMostVectors * (vectors ? kLanes<T> : 1));
    check_launch(op, x.device());
}

}  // namespace sana::cuda
