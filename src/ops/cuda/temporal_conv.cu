// temporal_conv: three products, one a tap, that add up in fp32 over the frames shifted by one; then identity, gate,
// residual and the one rounding.
#include "ops/conv.h"

#include "ops/cuda/cuda.h"
#include "ops/cuda/device/element.cuh"
#include "ops/cuda/gemm.h"

namespace sana::cuda {

void temporal_conv(const TemporalConvArgs& args) {
    if (args.y.numel() == 0) return;
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
        tap(1, frames * positions, at(args.x, start), at(sums, start), false);
        tap(0, others, at(args.x, start), at(sums, start + frame), true);
        tap(2, others, at(args.x, start + frame), at(sums, start), true);
        if (args.past.defined()) tap(0, positions, at(args.past, b * frame), at(sums, start), true);
    }
    finish(sums,
           {.identity = &args.x,
            .gate = &args.out.gate,
            .tokens = frames * positions,
            .residual = &args.out.residual},
           args.y);
}

}  // namespace sana::cuda
