// E4M3 (ops/fp8.h). On Hopper products are those of its 8-bit tensor cores: cuBLASLt's where a bias alone follows a large one,
// else our own (gemm_sm90.h). Elsewhere, and where an alignment does not suit, those of the dequantised operands, which have
// the same values.
#include "ops/fp8.h"

#include "ops/cuda/cuda.h"
#include "ops/cuda/device/rows.cuh"
#include "ops/cuda/gemm.h"
#include "ops/cuda/gemm_sm90.h"

namespace sana::cuda {

namespace {

template <class T>
__global__ void dequantise_kernel(const uint8_t* codes, const float* scale, T* y, int64_t cols,
                                  int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        __nv_fp8_e4m3 code;
        code.__x = codes[i];
        y[i] = from_float<T>(static_cast<float>(code) * scale[i / cols]);
    }
}

// What a product of codes has in common, whatever x is.
HopperProduct product_of(const Fp8& x, const Fp8& weight, const Epilogue& out, Tensor& y) {
    HopperProduct p{.dtype = DType::F8E4M3, .device = y.device()};
    p.width = y.cols();
    p.x = x.codes.raw();
    p.w = weight.codes.raw();
    p.x_scale = pointer<float>(x.scale);
    p.w_scale = pointer<float>(weight.scale);
    p.y = y.raw();
    p.y_stride = y.row_stride();
    p.activation = out.activation;
    if (out.gate.defined()) {
        p.gate = out.gate.raw();
        p.gate_stride = out.gate.row_stride();
        p.groups = out.gate.dim(1);
    }
    p.residual = out.residual.raw();
    p.residual_stride = out.residual.defined() ? out.residual.row_stride() : 0;
    return p;
}

// With fewer rows the library has kernels of its own choice that no case covers.
constexpr int64_t kManyRows = 1024;

// Products that a bias alone follows are faster in cuBLASLt, which has no gate and adds residuals to rounded results.
bool by_library(const LinearFp8Args& args) {
    const Epilogue& out = args.out;
    if (out.activation != Activation::none || out.gate.defined() || out.residual.defined()) return false;
    Product p{.dtype = DType::F8E4M3,
              .y_dtype = args.y.dtype(),
              .M = args.y.rows(),
              .N = args.y.cols(),
              .K = args.x.codes.cols(),
              .x = matrix(args.x.codes),
              .w = matrix(args.weight.codes),
              .y = matrix(args.y),
              .bias = args.bias.raw(),
              .device = args.y.device(),
              .x_scale = pointer<float>(args.x.scale),
              .w_scale = pointer<float>(args.weight.scale)};
    if (p.M < kManyRows || !has_fp8_product(p)) return false;
    product(p);
    return true;
}

bool on_tensor_cores(const LinearFp8Args& args) {
    if (args.y.dtype() != DType::BF16) return false;
    HopperProduct p = product_of(args.x, args.weight, args.out, args.y);
    p.x_rows = p.y_rows = args.y.rows();
    p.channels = p.x_stride = args.x.codes.cols();
    p.bias = args.bias.raw();
    p.tokens = args.out.gate.defined() ? args.x.codes.dim(1) : 1;
    return hopper_product(p);
}

bool on_tensor_cores(const TemporalConvFp8Args& args) {
    if (args.y.dtype() != DType::BF16) return false;
    const Shape& shape = args.x.shape();
    int64_t past = args.codes.codes.dim(1) - shape[1], positions = shape[2];
    HopperProduct p = product_of(args.codes, args.weight, args.out, args.y);
    p.batch = shape[0];
    p.x_rows = (past + shape[1]) * positions;
    p.y_rows = p.tokens = shape[1] * positions;
    p.channels = p.x_stride = shape[3];
    p.taps = 3;
    p.tap_step = positions;
    p.before = (1 - past) * positions;
    p.identity = args.x.raw();
    p.identity_stride = shape[3];
    return hopper_product(p);
}

}  // namespace

void quantise(const QuantiseArgs& args) {
    dispatch_cuda("quantise", args.x.dtype(), [&]<class T>() {
        for_rows<T>("quantise", args.x, true,
                    Fp8Rows{pointer<uint8_t>(args.y.codes), pointer<float>(args.y.scale)});
    });
}

void dequantise(const DequantiseArgs& args) {
    if (args.y.numel() == 0) return;
    dispatch_cuda("dequantise", args.y.dtype(), [&]<class T>() {
        dequantise_kernel<T><<<grid_for(args.y.numel(), 256), 256, 0, stream_of(args.y.device())>>>(
            pointer<uint8_t>(args.x.codes), pointer<float>(args.x.scale), pointer<T>(args.y), args.y.cols(),
            args.y.numel());
    });
    check_launch("dequantise_kernel", args.y.device());
}

void linear_fp8(const LinearFp8Args& args) {
    if (args.y.numel() == 0 || by_library(args) || on_tensor_cores(args)) return;
    DType dtype = args.y.dtype();
    Tensor x = sana::dequantise(args.x, dtype), weight = sana::dequantise(args.weight, dtype);
    linear({x, weight, args.bias, args.out, args.y});
}

void temporal_conv_fp8(const TemporalConvFp8Args& args) {
    if (args.y.numel() == 0 || on_tensor_cores(args)) return;
    DType dtype = args.y.dtype();
    int64_t channels = args.x.cols();
    Tensor x = sana::dequantise(args.codes, dtype),
           weight = sana::dequantise(args.weight, dtype).reshape({channels, 3, channels});
    int64_t past = x.dim(1) - args.x.dim(1);
    Tensor before = past > 0 ? slice(x, 1, 0, past) : Tensor(),
           now = past > 0 ? slice(x, 1, past, x.dim(1) - past) : x;
    temporal_conv_of(now, {args.x, weight, before, args.out, args.y});
}

}  // namespace sana::cuda
