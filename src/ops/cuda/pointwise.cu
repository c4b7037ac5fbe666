// y = f(x_1, ..., x_n) element by element, in fp32 with one rounding. A thread takes one 16-byte vector of every operand
// (one element where rows do not allow vectors): each operand is read once, y written once, so time = bytes / bandwidth.
#include "ops/pointwise.h"

#include "ops/cuda/cuda.h"
#include "ops/cuda/device/element.cuh"

namespace sana::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kMaxOperands = 4;

template <class T>
struct Operands {
    const T* data[kMaxOperands];
    int64_t stride[kMaxOperands];  // between rows, in elements
};

// f(values of element i of the operands, column) -> result.
template <class T, int N, int V, class F>
__global__ void elementwise_kernel(Operands<T> in, T* y, int64_t y_stride, int64_t cols, int64_t vectors,
                                   F f) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, per_row = cols / V;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < vectors; i += step) {
        int64_t row = i / per_row, col = (i - row * per_row) * V;
        float x[N][V], out[V];
#pragma unroll
        for (int n = 0; n < N; ++n) load<V>(in.data[n] + row * in.stride[n] + col, x[n]);
#pragma unroll
        for (int v = 0; v < V; ++v) {
            float element[N];
#pragma unroll
            for (int n = 0; n < N; ++n) element[n] = x[n][v];
            out[v] = f(element, col + v);
        }
        store<V>(y + row * y_stride + col, out);
    }
}

template <class T, int N, class F>
void elementwise(const char* op, std::initializer_list<const Tensor*> operands, Tensor& y, bool by_column,
                 F f) {
    if (y.numel() == 0) return;
    Operands<T> in{};
    bool vectors = vectors_fit(y), dense = !by_column && y.dense();
    int n = 0;
    for (const Tensor* x : operands) {
        in.data[n] = pointer<T>(*x);
        in.stride[n++] = x->row_stride();
        vectors = vectors && vectors_fit(*x);
        dense = dense && x->dense();
    }
    int64_t cols = y.cols(), count = y.numel(), y_stride = y.row_stride();
    if (dense) {  // one long row
        cols = y_stride = count;
        vectors = count % kLanes<T> == 0;
        for (const Tensor* x : operands) vectors = vectors && reinterpret_cast<uintptr_t>(x->raw()) % 16 == 0;
        vectors = vectors && reinterpret_cast<uintptr_t>(y.raw()) % 16 == 0;
    }
    cudaStream_t stream = stream_of(y.device());
    if (vectors) {
        constexpr int V = kLanes<T>;
        elementwise_kernel<T, N, V><<<grid_for(count / V, kThreads), kThreads, 0, stream>>>(
            in, pointer<T>(y), y_stride, cols, count / V, f);
    } else {
        elementwise_kernel<T, N, 1>
            <<<grid_for(count, kThreads), kThreads, 0, stream>>>(in, pointer<T>(y), y_stride, cols, count, f);
    }
    check_launch(op, y.device());
}

struct Activate {
    Activation activation;
    __device__ float operator()(const float (&x)[1], int64_t) const { return activated(x[0], activation); }
};
struct Add {
    __device__ float operator()(const float (&x)[2], int64_t) const { return x[0] + x[1]; }
};
struct GeluMultiply {
    __device__ float operator()(const float (&x)[2], int64_t) const { return gelu_tanh(x[0]) * x[1]; }
};
struct Clamp {
    float low, high;
    __device__ float operator()(const float (&x)[1], int64_t) const {
        float value = x[0] < low ? low : x[0];  // NaN stays NaN
        return value > high ? high : value;
    }
};
template <class T>
struct Affine {
    const T *scale, *shift;  // by column; null: 1 and 0
    __device__ float operator()(const float (&x)[1], int64_t col) const {
        float a = scale == nullptr ? 1.0f : to_float(scale[col]);
        float b = shift == nullptr ? 0.0f : to_float(shift[col]);
        return x[0] * a + b;
    }
};
template <int N>
struct Combine {
    float factors[N];
    __device__ float operator()(const float (&x)[N], int64_t) const {
        float sum = 0;
#pragma unroll
        for (int n = 0; n < N; ++n) sum += factors[n] * x[n];
        return sum;
    }
};

template <class T, int N>
void combine_terms(const CombineArgs& args) {
    Combine<N> f{};
    for (int n = 0; n < N; ++n) f.factors[n] = static_cast<float>(args.terms[static_cast<size_t>(n)].first);
    const auto& t = args.terms;
    if constexpr (N == 1) elementwise<T, 1>("combine", {&t[0].second}, args.y, false, f);
    if constexpr (N == 2) elementwise<T, 2>("combine", {&t[0].second, &t[1].second}, args.y, false, f);
    if constexpr (N == 3) {
        elementwise<T, 3>("combine", {&t[0].second, &t[1].second, &t[2].second}, args.y, false, f);
    }
    if constexpr (N == 4) {
        elementwise<T, 4>("combine", {&t[0].second, &t[1].second, &t[2].second, &t[3].second}, args.y, false,
                          f);
    }
}

template <class T>
__global__ void group_mean_kernel(const T* x, int64_t stride, T* y, int64_t cols, int64_t group,
                                  int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        const T* from = x + i / cols * stride + i % cols * group;
        float sum = 0;
        for (int64_t j = 0; j < group; ++j) sum += to_float(from[j]);
        y[i] = from_float<T>(sum / static_cast<float>(group));
    }
}

}  // namespace

void activate(const ActivateArgs& args) {
    dispatch_cuda("activate", args.y.dtype(), [&]<class T>() {
        elementwise<T, 1>("activate", {&args.x}, args.y, false, Activate{args.activation});
    });
}

void add(const BinaryArgs& args) {
    dispatch_cuda("add", args.y.dtype(), [&]<class T>() {
        elementwise<T, 2>("add", {&args.a, &args.b}, args.y, false, Add{});
    });
}

void gelu_multiply(const BinaryArgs& args) {
    dispatch_cuda("gelu_multiply", args.y.dtype(), [&]<class T>() {
        elementwise<T, 2>("gelu_multiply", {&args.a, &args.b}, args.y, false, GeluMultiply{});
    });
}

void clamp(const ClampArgs& args) {
    dispatch_cuda("clamp", args.y.dtype(), [&]<class T>() {
        elementwise<T, 1>("clamp", {&args.x}, args.y, false, Clamp{args.low, args.high});
    });
}

void affine(const AffineArgs& args) {
    dispatch_cuda("affine", args.y.dtype(), [&]<class T>() {
        Affine<T> f{args.scale.defined() ? pointer<T>(args.scale) : nullptr,
                    args.shift.defined() ? pointer<T>(args.shift) : nullptr};
        elementwise<T, 1>("affine", {&args.x}, args.y, true, f);
    });
}

void combine(const CombineArgs& args) {
    dispatch_cuda("combine", args.y.dtype(), [&]<class T>() {
        switch (args.terms.size()) {
            case 1: return combine_terms<T, 1>(args);
            case 2: return combine_terms<T, 2>(args);
            case 3: return combine_terms<T, 3>(args);
            default: return combine_terms<T, 4>(args);
        }
    });
}

void group_mean(const GroupMeanArgs& args) {
    int64_t count = args.y.numel();
    if (count == 0) return;
    dispatch_cuda("group_mean", args.y.dtype(), [&]<class T>() {
        group_mean_kernel<T><<<grid_for(count, kThreads), kThreads, 0, stream_of(args.y.device())>>>(
            pointer<T>(args.x), args.x.row_stride(), pointer<T>(args.y), args.y.cols(), args.group, count);
    });
    check_launch("group_mean", args.y.device());
}

}  // namespace sana::cuda
