// temporal_conv. On Hopper one product: over the positions of all frames in a row, a tap is a shift by one frame's
// positions, and what lies outside reads as zero; identity, gate and residual are its epilogue. Elsewhere three products,
// one a tap, that add up in fp32, and a second kernel for the rest.
#include "ops/conv.h"

#include "ops/cuda/cuda.h"
#include "ops/cuda/device/element.cuh"
#include "ops/cuda/gemm.h"
#include "ops/cuda/gemm_sm90.h"
#include "ops/layout.h"

namespace sana::cuda {

namespace {

bool on_tensor_cores(const TemporalConvArgs& args) {
    if (args.x.dtype() != DType::BF16) return false;
    int64_t batch = args.x.dim(0), frames = args.x.dim(1), positions = args.x.dim(2),
            channels = args.x.dim(3);
    Tensor x = args.past.defined() ? concat({args.past, args.x}, 1) : args.x;
    HopperProduct p{.device = x.device(), .batch = batch};
    p.x_rows = x.dim(1) * positions;
    p.y_rows = p.tokens = frames * positions;
    p.channels = p.width = p.x_stride = channels;
    p.x = x.raw();
    p.w = args.weight.raw();
    p.taps = 3;
    p.tap_step = positions;
    p.before = args.past.defined() ? 0 : positions;
    p.y = args.y.raw();
    p.y_stride = channels;
    p.identity = args.x.raw();
    p.identity_stride = channels;
    if (args.out.gate.defined()) {
        p.gate = args.out.gate.raw();
        p.gate_stride = args.out.gate.row_stride();
        p.groups = args.out.gate.dim(1);
    }
    p.residual = args.out.residual.raw();
    p.residual_stride = args.out.residual.defined() ? args.out.residual.row_stride() : 0;
    return hopper_product(p);
}

}  // namespace

void temporal_conv_of(const Tensor& product_x, const TemporalConvArgs& args) {
    int64_t batch = args.x.dim(0), frames = args.x.dim(1), positions = args.x.dim(2),
            channels = args.x.dim(3);
    Tensor sums = empty({batch * frames * positions, channels}, DType::F32, args.x.device());
    int64_t element = size_of(args.x.dtype()), frame = positions * channels;
    auto at = [&](const Tensor& x, int64_t offset) {
        return Matrix{static_cast<std::byte*>(x.raw()) + offset * size_of(x.dtype()), channels};
    };
    auto tap = [&](int64_t r, int64_t rows, Matrix from, Matrix to, bool accumulate) {
        Matrix weight{static_cast<std::byte*>(args.weight.raw()) + r * channels * element, 3 * channels};
        product({.dtype = args.x.dtype(),
                 .y_dtype = DType::F32,
                 .M = rows,
                 .N = channels,
                 .K = channels,
                 .x = from,
                 .w = weight,
                 .y = to,
                 .c = accumulate ? to : Matrix{},
                 .device = args.x.device()});
    };
    for (int64_t b = 0; b < batch; ++b) {
        int64_t start = b * frames * frame, others = (frames - 1) * positions;
        tap(1, frames * positions, at(product_x, start), at(sums, start), false);
        tap(0, others, at(product_x, start), at(sums, start + frame), true);
        tap(2, others, at(product_x, start + frame), at(sums, start), true);
        if (args.past.defined()) tap(0, positions, at(args.past, b * frame), at(sums, start), true);
    }
    finish(sums,
           {.identity = &args.x,
            .gate = &args.out.gate,
            .tokens = frames * positions,
            .residual = &args.out.residual},
           args.y);
}

void temporal_conv(const TemporalConvArgs& args) {
    if (args.y.numel() > 0 && !on_tensor_cores(args)) temporal_conv_of(args.x, args);
}

}  // namespace sana::cuda
