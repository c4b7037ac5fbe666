// layer_norm_modulate, to the dtype of x or to E4M3, and rms_norm: rows in
// registers (device/rows.cuh), statistics are exact sums, y is written once:
// time = (bytes(x) + bytes(y)) / bandwidth.
#include "ops/norm.h"

#include "ops/cuda/cuda.h"
#include "ops/cuda/device/rows.cuh"
#include "ops/cuda/rms_norm_short.h"
#include "ops/fp8.h"

namespace sana::cuda {

namespace {

template <int V, int K, class F>
__device__ void for_all(float (&x)[K][V], int count, F f) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
        if (k < count) {
#pragma unroll
            for (int v = 0; v < V; ++v) f(x[k][v], k, v);
        }
    }
}

// Where a row's group of shift, scale begins.
struct Groups {
    int64_t tokens = 1, per_group = 1, groups = 1;
    __device__ int64_t of(int64_t row) const { return row / tokens * groups + row % tokens / per_group; }
};

template <class T, class Out>
struct LayerNorm {
    const T *shift, *scale;
    int64_t shift_stride, scale_stride;
    Groups groups;
    float eps;
    Out out;

    // x holds the row's own elements; those beyond the row are absent (count says
    // how many vectors).
    template <int Threads, int V, int K>
    __device__ void operator()(float (&x)[K][V], int count, int64_t row, int64_t cols) const {
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
            float a[V], b[V];
            load<V>(scale + group * scale_stride + col, a);
            load<V>(shift + group * shift_stride + col, b);
#pragma unroll
            for (int v = 0; v < V; ++v) x[k][v] = (x[k][v] - rest) * scaling * (1 + a[v]) + b[v];
        }
        out.template operator()<Threads, V, K>(x, count, row, cols);
    }
};

template <class T>
struct RootMeanSquare {
    const T* weight;  // null: 1
    float eps, floor, offset;
    Activation activation;
    DenseRows<T> out;

    template <int Threads, int V, int K>
    __device__ void operator()(float (&x)[K][V], int count, int64_t row, int64_t cols) const {
        float squares = 0;
        for_all(x, count, [&](float& v, int, int) { squares += v * v; });
        squares = row_sum<Threads>(squares);
        float n = static_cast<float>(cols);
        float r = floor > 0 ? sqrtf(n) / (sqrtf(squares) < floor ? floor : sqrtf(squares))
                            : 1 / sqrtf(squares / n + eps);
#pragma unroll
        for (int k = 0; k < K; ++k) {
            if (k >= count) break;
            int64_t col = (static_cast<int64_t>(k) * Threads + threadIdx.x % Threads) * V;
            float w[V];
            if (weight != nullptr) load<V>(weight + col, w);
#pragma unroll
            for (int v = 0; v < V; ++v) {
                float factor = weight != nullptr ? w[v] + offset : 1.0f;
                x[k][v] = activated(x[k][v] * r * factor, activation);
            }
        }
        out.template operator()<Threads, V, K>(x, count, row, cols);
    }
};

template <class T, class Args, class Out>
void layer_norm(const char* op, const Args& args, const Out& out) {
    int64_t tokens = args.x.dim(1), groups = args.shift.dim(1);
    LayerNorm<T, Out> norm{pointer<T>(args.shift),
                           pointer<T>(args.scale),
                           args.shift.row_stride(),
                           args.scale.row_stride(),
                           {tokens, std::max<int64_t>(1, tokens / groups), groups},
                           args.eps,
                           out};
    for_rows<T>(op, args.x, vectors_fit(args.shift) && vectors_fit(args.scale), norm);
}

}  // namespace

void layer_norm_modulate(const LayerNormModulateArgs& args) {
    dispatch_cuda("layer_norm_modulate", args.x.dtype(), [&]<class T>() {
        layer_norm<T>("layer_norm_modulate", args, DenseRows<T>{pointer<T>(args.y)});
    });
}

void layer_norm_modulate_fp8(const LayerNormModulateFp8Args& args) {
    dispatch_cuda("layer_norm_modulate_fp8", args.x.dtype(), [&]<class T>() {
        layer_norm<T>("layer_norm_modulate_fp8", args,
                      Fp8Rows{pointer<uint8_t>(args.y.codes), pointer<float>(args.y.scale)});
    });
}

void rms_norm(const RmsNormArgs& args) {
    if (rms_norm_short(args)) return;
    const RmsNormOptions& o = args.options;
    dispatch_cuda("rms_norm", args.x.dtype(), [&]<class T>() {
        RootMeanSquare<T> norm{args.weight.defined() ? pointer<T>(args.weight) : nullptr,
                               o.eps,
                               o.floor,
                               o.weight_offset,
                               o.activation,
                               {pointer<T>(args.y)}};
        for_rows<T>("rms_norm", args.x, !args.weight.defined() || vectors_fit(args.weight), norm);
    });
}

}  // namespace sana::cuda
