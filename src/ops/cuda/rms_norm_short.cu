// rms_norm_short: 8, 16 or 32 lanes a row, each with one or two 16-byte vectors of it. A lane asks for its parts of kRows
// rows before it uses the first, so that enough bytes are on their way; time = 2 * bytes(x) / bandwidth.
#include "ops/cuda/rms_norm_short.h"

#include "ops/cuda/device/element.cuh"

namespace sana::cuda {

namespace {

constexpr int kThreads = 256, kRows = 4;

struct Form {
    float eps, floor, offset;
    Activation activation;
};

// The division of silu() would be half of all instructions, and more than the memory hides.
template <bool Silu>
__device__ __forceinline__ float finished(float x, Activation activation) {
    if constexpr (Silu) return __fdividef(x, 1.0f + __expf(-x));
    return activated(x, activation);
}

template <class T, int Lanes, int Vectors, bool Silu>
__global__ void __launch_bounds__(kThreads) rms_norm_short_kernel(const T* x, int64_t stride, const T* weight,
                                                                  T* y, int64_t rows, int cols, Form form) {
    constexpr int V = kLanes<T>, kTogether = kThreads / Lanes;
    int lane = static_cast<int>(threadIdx.x) % Lanes;
    int64_t first = static_cast<int64_t>(blockIdx.x) * kTogether * kRows + threadIdx.x / Lanes;
    Vector<T, V> parts[kRows][Vectors];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int k = 0; k < Vectors; ++k) {
            int64_t row = first + r * kTogether;
            int column = (k * Lanes + lane) * V;
            if (row < rows && column < cols)
                parts[r][k] = *reinterpret_cast<const Vector<T, V>*>(x + row * stride + column);
        }
    }
    float factor[Vectors][V];
#pragma unroll
    for (int k = 0; k < Vectors; ++k) {
        int column = (k * Lanes + lane) * V;
        if (weight != nullptr && column < cols) load<V>(weight + column, factor[k]);
#pragma unroll
        for (int v = 0; v < V; ++v) factor[k][v] = weight != nullptr ? factor[k][v] + form.offset : 1.0f;
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        int64_t row = first + r * kTogether;
        float squares = 0;
#pragma unroll
        for (int k = 0; k < Vectors; ++k) {
            if ((k * Lanes + lane) * V >= cols) continue;
#pragma unroll
            for (int v = 0; v < V; ++v) {
                float value = to_float(parts[r][k].values[v]);
                squares += value * value;
            }
        }
#pragma unroll
        for (int offset = Lanes / 2; offset > 0; offset /= 2)
            squares += __shfl_xor_sync(0xffffffffu, squares, offset);
        if (row >= rows) continue;
        float n = static_cast<float>(cols), root = sqrtf(squares);
        float scale = form.floor > 0 ? sqrtf(n) / (root < form.floor ? form.floor : root)
                                     : 1 / sqrtf(squares / n + form.eps);
#pragma unroll
        for (int k = 0; k < Vectors; ++k) {
            int column = (k * Lanes + lane) * V;
            if (column >= cols) continue;
            float out[V];
#pragma unroll
            for (int v = 0; v < V; ++v)
                out[v] =
                    finished<Silu>(to_float(parts[r][k].values[v]) * scale * factor[k][v], form.activation);
            store<V>(y + row * cols + column, out);
        }
    }
}

template <class T, int Lanes, int Vectors>
void launch(const RmsNormArgs& args) {
    const RmsNormOptions& o = args.options;
    int64_t rows = args.x.rows(), per_block = kThreads / Lanes * kRows;
    auto kernel = o.activation == Activation::silu ? rms_norm_short_kernel<T, Lanes, Vectors, true>
                                                   : rms_norm_short_kernel<T, Lanes, Vectors, false>;
    kernel<<<static_cast<unsigned>((rows + per_block - 1) / per_block), kThreads, 0,
             stream_of(args.x.device())>>>(pointer<T>(args.x), args.x.row_stride(),
                                           args.weight.defined() ? pointer<T>(args.weight) : nullptr,
                                           pointer<T>(args.y), rows, static_cast<int>(args.x.cols()),
                                           Form{o.eps, o.floor, o.weight_offset, o.activation});
}

}  // namespace

bool rms_norm_short(const RmsNormArgs& args) {
    if (args.x.numel() == 0 || !vectors_fit(args.x) || !vectors_fit(args.y) ||
        (args.weight.defined() && !vectors_fit(args.weight))) {
        return false;
    }
    int64_t vectors = args.x.cols() * size_of(args.x.dtype()) / 16;
    if (vectors > 64) return false;
    dispatch_cuda("rms_norm", args.x.dtype(), [&]<class T>() {
        if (vectors <= 8) return launch<T, 8, 1>(args);
        if (vectors <= 16) return launch<T, 16, 1>(args);
        if (vectors <= 32) return launch<T, 32, 1>(args);
        launch<T, 32, 2>(args);
    });
    check_launch("rms_norm_short_kernel", args.x.device());
    return true;
}

}  // namespace sana::cuda
