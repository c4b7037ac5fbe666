// linear: cuBLASLt where a product is followed by a bias alone. What it cannot do in one rounding (activations, gates,
// residuals of 16 bits, which it adds to a rounded result) our own product for Hopper does in its epilogue; elsewhere the
// fp32 sums go through a second kernel.
#include "ops/linear.h"

#include "ops/cuda/cuda.h"
#include "ops/cuda/device/element.cuh"
#include "ops/cuda/gemm.h"
#include "ops/cuda/gemm_sm90.h"

namespace sana::cuda {

namespace {

template <class T>
struct FinishRows {
    const T *bias, *identity, *gate, *residual;  // null: none
    int64_t identity_stride, gate_stride, residual_stride, tokens, groups;
    Activation activation;
};

template <class T>
__global__ void finish_kernel(const float* sums, FinishRows<T> f, T* y, int64_t stride, int64_t cols,
                              int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        int64_t row = i / cols, col = i - row * cols;
        float value = sums[i];
        if (f.bias != nullptr) value += to_float(f.bias[col]);
        if (f.identity != nullptr) value += to_float(f.identity[row * f.identity_stride + col]);
        value = activated(value, f.activation);
        if (f.gate != nullptr) {
            int64_t group = row / f.tokens * f.groups + row % f.tokens / (f.tokens / f.groups);
            value *= to_float(f.gate[group * f.gate_stride + col]);
        }
        if (f.residual != nullptr) value += to_float(f.residual[row * f.residual_stride + col]);
        y[row * stride + col] = from_float<T>(value);
    }
}

bool plain(const LinearArgs& args) {
    const Epilogue& out = args.out;
    bool exact_residual = !out.residual.defined() || args.x.dtype() == DType::F32;
    return out.activation == Activation::none && !out.gate.defined() && exact_residual;
}

// With fewer rows most of each tile would be empty.
constexpr int64_t kFewRows = 64;

bool on_tensor_cores(const LinearArgs& args) {
    const Epilogue& out = args.out;
    if (args.x.dtype() != DType::BF16 || plain(args) || args.x.rows() < kFewRows) return false;
    HopperProduct p{.device = args.x.device()};
    p.x_rows = p.y_rows = args.x.rows();
    p.channels = args.x.cols();
    p.width = args.y.cols();
    p.x = args.x.raw();
    p.x_stride = args.x.row_stride();
    p.w = args.weight.raw();
    p.y = args.y.raw();
    p.y_stride = args.y.row_stride();
    p.bias = args.bias.raw();
    p.activation = out.activation;
    if (out.gate.defined()) {
        p.gate = out.gate.raw();
        p.gate_stride = out.gate.row_stride();
        p.tokens = args.x.dim(1);
        p.groups = out.gate.dim(1);
    }
    p.residual = out.residual.raw();
    p.residual_stride = out.residual.defined() ? out.residual.row_stride() : 0;
    return hopper_product(p);
}

}  // namespace

void finish(const Tensor& sums, const Finish& f, Tensor& y) {
    if (y.numel() == 0) return;
    auto given = [](const Tensor* x) { return x != nullptr && x->defined(); };
    dispatch_cuda("linear", y.dtype(), [&]<class T>() {
        auto data = [&](const Tensor* x) { return given(x) ? pointer<T>(*x) : nullptr; };
        auto stride = [&](const Tensor* x) { return given(x) ? x->row_stride() : 0; };
        FinishRows<T> rows{data(f.bias),       data(f.identity),   data(f.gate),
                           data(f.residual),   stride(f.identity), stride(f.gate),
                           stride(f.residual), f.tokens,           given(f.gate) ? f.gate->dim(1) : 1,
                           f.activation};
        finish_kernel<T><<<grid_for(y.numel(), 256), 256, 0, stream_of(y.device())>>>(
            pointer<float>(sums), rows, pointer<T>(y), y.row_stride(), y.cols(), y.numel());
    });
    check_launch("finish_kernel", y.device());
}

void linear(const LinearArgs& args) {
    const Epilogue& out = args.out;
    DType dtype = args.x.dtype();
    Product p{.dtype = dtype,
              .y_dtype = dtype,
              .M = args.x.rows(),
              .N = args.y.cols(),
              .K = args.x.cols(),
              .x = matrix(args.x),
              .w = matrix(args.weight),
              .y = matrix(args.y),
              .device = args.x.device()};
    if (args.y.numel() == 0 || on_tensor_cores(args)) return;
    if (plain(args)) {
        if (args.bias.defined()) p.bias = args.bias.raw();
        if (out.residual.defined()) p.c = matrix(out.residual);
        product(p);
        return;
    }
    Tensor sums = empty({p.M, p.N}, DType::F32, p.device);
    p.y_dtype = DType::F32;
    p.y = matrix(sums);
    product(p);
    finish(sums,
           {.bias = &args.bias,
            .activation = out.activation,
            .gate = &out.gate,
            .tokens = args.x.rank() > 1 ? args.x.dim(-2) : 1,
            .residual = &out.residual},
           args.y);
}

}  // namespace sana::cuda
