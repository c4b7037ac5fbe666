// layer_norm_modulate and rms_norm: a block a row (a warp or part of one where rows are short). The row is read once into registers as
// fp32, its statistics are exact sums over the block, and y is written once: time = 2 * bytes(x) / bandwidth.
#include "ops/norm.h"

#include "ops/cuda/cuda.h"
#include "ops/cuda/device/element.cuh"

namespace sana::cuda {

namespace {

// Threads that share a row and the vectors that each of them holds; rows longer than kMaxVectors * threads * V are read
// from memory again instead.
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

// Where a row's group of shift, scale begins.
struct Groups {
    int64_t tokens = 1, per_group = 1, groups = 1;
    __device__ int64_t of(int64_t row) const { return row / tokens * groups + row % tokens / per_group; }
};

template <class T>
struct LayerNorm {
    const T *shift, *scale;
    int64_t shift_stride, scale_stride;
    Groups groups;
    float eps;

    // x holds the row's own elements; those beyond the row are absent (count says how many vectors).
    template <int Threads, int V, int K>
    __device__ void operator()(float (&x)[K][V], int count, int64_t row, int64_t cols, T* y) const {
        float n = static_cast<float>(cols), sum = 0;
        for_all(x, count, [&](float& v, int, int) { sum += v; });
        float mean = row_sum<Threads>(sum) / n;
        // The mean of what is left corrects a sum that rounded far from zero.
        float rest = 0, squares = 0;
        for_all(x, count, [&](float& v, int, int) {
            v -= mean;
            rest += v;
            squares += v * v;
        });
        rest = row_sum<Threads>(rest) / n;
        float variance = row_sum<Threads>(squares) / n - rest * rest;
        variance = variance < 0 ? 0 : variance;  // by rounding, when all elements are equal; keeps NaN
        float scaling = 1 / sqrtf(variance + eps);
        int64_t group = groups.of(row);
#pragma unroll
        for (int k = 0; k < K; ++k) {
            if (k >= count) break;
            int64_t col = (static_cast<int64_t>(k) * Threads + threadIdx.x % Threads) * V;
            float a[V], b[V], out[V];
            load<V>(scale + group * scale_stride + col, a);
            load<V>(shift + group * shift_stride + col, b);
#pragma unroll
            for (int v = 0; v < V; ++v) out[v] = (x[k][v] - rest) * scaling * (1 + a[v]) + b[v];
            store<V>(y + row * cols + col, out);
        }
    }

    template <int V, int K, class F>
    static __device__ void for_all(float (&x)[K][V], int count, F f) {
#pragma unroll
        for (int k = 0; k < K; ++k) {
            if (k < count) {
#pragma unroll
                for (int v = 0; v < V; ++v) f(x[k][v], k, v);
            }
        }
    }
};

template <class T>
struct RootMeanSquare {
    const T* weight;  // null: 1
    float eps, floor, offset;
    Activation activation;

    template <int Threads, int V, int K>
    __device__ void operator()(float (&x)[K][V], int count, int64_t row, int64_t cols, T* y) const {
        float squares = 0;
        LayerNorm<T>::for_all(x, count, [&](float& v, int, int) { squares += v * v; });
        squares = row_sum<Threads>(squares);
        float n = static_cast<float>(cols);
        float r = floor > 0 ? sqrtf(n) / (sqrtf(squares) < floor ? floor : sqrtf(squares))
                            : 1 / sqrtf(squares / n + eps);
#pragma unroll
        for (int k = 0; k < K; ++k) {
            if (k >= count) break;
            int64_t col = (static_cast<int64_t>(k) * Threads + threadIdx.x % Threads) * V;
            float w[V], out[V];
            if (weight != nullptr) load<V>(weight + col, w);
#pragma unroll
            for (int v = 0; v < V; ++v) {
                float factor = weight != nullptr ? w[v] + offset : 1.0f;
                out[v] = activated(x[k][v] * r * factor, activation);
            }
            store<V>(y + row * cols + col, out);
        }
    }
};

template <class T, int Threads, int V, int K, class Norm>
__global__ void norm_kernel(const T* x, int64_t stride, T* y, int64_t rows, int64_t cols, Norm norm) {
    // Threads beyond the last row do it again: they take part in the sums of their warp.
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
    norm.template operator()<Threads, V, K>(values, count, row, cols, y);
}

template <class T, int Threads, int V, int K, class Norm>
void launch_norm(const Tensor& x, Tensor& y, const Norm& norm) {
    int64_t rows = x.rows();
    constexpr int kBlock = std::max(128, Threads);
    int64_t per_block = kBlock / Threads, blocks = (rows + per_block - 1) / per_block;
    norm_kernel<T, Threads, V, K><<<static_cast<unsigned>(blocks), kBlock, 0, stream_of(x.device())>>>(
        pointer<T>(x), x.row_stride(), pointer<T>(y), rows, x.cols(), norm);
}

template <class T, int V, class Norm>
bool by_width(const Tensor& x, Tensor& y, const Norm& norm) {
    int64_t vectors = (x.cols() + V - 1) / V;
    if (vectors <= 8) return launch_norm<T, 8, V, 1>(x, y, norm), true;
    if (vectors <= 16) return launch_norm<T, 16, V, 1>(x, y, norm), true;
    if (vectors <= 32) return launch_norm<T, 32, V, 1>(x, y, norm), true;
    if (vectors <= 64) return launch_norm<T, 32, V, 2>(x, y, norm), true;
    if (vectors <= 128) return launch_norm<T, 32, V, 4>(x, y, norm), true;
    if (vectors <= 256) return launch_norm<T, 128, V, 2>(x, y, norm), true;
    if (vectors <= 384) return launch_norm<T, 128, V, 3>(x, y, norm), true;
    if (vectors <= 512) return launch_norm<T, 128, V, 4>(x, y, norm), true;
    if (vectors <= 640) return launch_norm<T, 128, V, 5>(x, y, norm), true;
    if (vectors <= 1024) return launch_norm<T, 256, V, 4>(x, y, norm), true;
    if (vectors <= 1024 * kMaxVectors) return launch_norm<T, 1024, V, kMaxVectors>(x, y, norm), true;
    return false;
}

template <class T, class Norm>
void run(const char* op, const Tensor& x, Tensor& y, bool vectors, const Norm& norm) {
    if (x.numel() == 0) return;
    vectors = vectors && vectors_fit(x) && vectors_fit(y);
    bool done = vectors ? by_width<T, kLanes<T>>(x, y, norm) : by_width<T, 1>(x, y, norm);
    check(done, op, ": rows of ", x.cols(), " elements are longer than the CUDA kernel's limit of ",
          1024 * kMaxVectors * (vectors ? kLanes<T> : 1));
    check_launch(op, x.device());
}

}  // namespace

void layer_norm_modulate(const LayerNormModulateArgs& args) {
    dispatch_cuda("layer_norm_modulate", args.x.dtype(), [&]<class T>() {
        int64_t tokens = args.x.dim(1), groups = args.shift.dim(1);
        LayerNorm<T> norm{pointer<T>(args.shift),
                          pointer<T>(args.scale),
                          args.shift.row_stride(),
                          args.scale.row_stride(),
                          {tokens, std::max<int64_t>(1, tokens / groups), groups},
                          args.eps};
        run<T>("layer_norm_modulate", args.x, args.y, vectors_fit(args.shift) && vectors_fit(args.scale),
               norm);
    });
}

void rms_norm(const RmsNormArgs& args) {
    const RmsNormOptions& o = args.options;
    dispatch_cuda("rms_norm", args.x.dtype(), [&]<class T>() {
        RootMeanSquare<T> norm{args.weight.defined() ? pointer<T>(args.weight) : nullptr, o.eps, o.floor,
                               o.weight_offset, o.activation};
        run<T>("rms_norm", args.x, args.y, !args.weight.defined() || vectors_fit(args.weight), norm);
    });
}

}  // namespace sana::cuda
