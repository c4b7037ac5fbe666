#include "ops/conv.h"

#include "ops/gradients.h"
#include "ops/kernels.h"
#include "ops/tape.h"

namespace sana {

Tensor conv3d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv3dOptions& options) {
    DType dtype = same_dtype("conv3d", {&x, &weight, &bias, &options.past, &options.residual});
    // U V S: the kernel's frames, rows, columns.
    Dims d = bind_op("conv3d", {{x, "x[B,T,H,W,C]"},
                                {weight, "weight[O,U,V,S,C]"},
                                {bias, "bias[O]", kMayBeNone},
                                {options.past, "past[B,P,H,W,C]", kMayBeNone}});
    check(x.dense() && weight.dense() && (!options.past.defined() || options.past.dense()), "conv3d: ", x,
          " must be dense");
    check(options.time_mode != PadMode::reflect && options.space_mode != PadMode::replicate,
          "conv3d: time is padded with zeros or by replication, space with zeros or by reflection");
    check(options.time_mode == PadMode::zeros || d['T'] > 0, "conv3d: ", x, " has no frame to repeat");
    const int64_t kernel[3] = {d['U'], d['V'], d['S']};
    // With a gradient to carry the doubling is an op of its own.
    const Tape* tape = Tape::current();
    if (options.upsample && tape != nullptr &&
        (tape->needs(x) || tape->needs(weight) || tape->needs(bias) || tape->needs(options.past) ||
         tape->needs(options.residual))) {
        Conv3dOptions plain = options;
        plain.upsample = false;
        if (options.past.defined()) plain.past = upsample_nearest(options.past);
        return conv3d(upsample_nearest(x), weight, bias, plain);
    }
    const int64_t scale = options.upsample ? 2 : 1;
    const int64_t size[3] = {d['T'] + (options.past.defined() ? d['P'] : 0), scale * d['H'], scale * d['W']};
    Shape shape{d['B'], 0, 0, 0, d['O']};
    for (size_t i = 0; i < 3; ++i) {
        check(options.pad_before[i] >= 0 && options.pad_after[i] >= 0 && options.stride[i] > 0,
              "conv3d: axis ", i, " has padding ", options.pad_before[i], ", ", options.pad_after[i],
              " and stride ", options.stride[i]);
        int64_t padded = size[i] + options.pad_before[i] + options.pad_after[i];
        check(padded >= kernel[i], "conv3d: a kernel of ", kernel[i], " on axis ", i,
              " does not fit the padded size ", padded, " of ", x);
        if (i > 0 && options.space_mode == PadMode::reflect) {
            check(options.pad_before[i] < size[i] && options.pad_after[i] < size[i], "conv3d: ", x,
                  " is too small to be padded by reflection");
        }
        shape[static_cast<int>(i) + 1] = (padded - kernel[i]) / options.stride[i] + 1;
    }
    check(!options.residual.defined() || (options.residual.shape() == shape && options.residual.dense()),
          "conv3d: residual ", options.residual, " for a result of shape ", shape);
    Tensor y = empty(shape, dtype, x.device());
    launch("conv3d", &Kernels::conv3d, x.device(), Conv3dArgs{x, weight, bias, options, y});
    record_conv3d(x, weight, bias, options, y);
    return y;
}

Tensor depthwise_glu(const Tensor& x, const Tensor& weight, const Tensor& bias) {
    DType dtype = same_dtype("depthwise_glu", {&x, &weight, &bias});
    Dims d = bind_op("depthwise_glu",
                     {{x, "x[B,T,H,W,F]"}, {weight, "weight[3,3,F]"}, {bias, "bias[F]", kMayBeNone}});
    check(x.dense() && weight.dense() && d['F'] % 2 == 0, "depthwise_glu: ", x,
          " must be dense with an even width");
    Tensor y = empty({d['B'], d['T'], d['H'], d['W'], d['F'] / 2}, dtype, x.device());
    launch("depthwise_glu", &Kernels::depthwise_glu, x.device(), DepthwiseGluArgs{x, weight, bias, y});
    record_depthwise_glu(x, weight, bias, y);
    return y;
}

Tensor temporal_conv(const Tensor& x, const Tensor& weight, const Tensor& past, const Epilogue& out) {
    DType dtype = same_dtype("temporal_conv", {&x, &weight, &past, &out.gate, &out.residual});
    Dims d = bind_op("temporal_conv", {{x, "x[B,T,S,C]"},
                                       {weight, "weight[C,3,C]"},
                                       {past, "past[B,1,S,C]", kMayBeNone},
                                       {out.residual, "residual[B,T,S,C]", kMayBeNone},
                                       {out.gate, "gate[B,G,C]", kMayBeNone}});
    check(out.activation == Activation::none, "temporal_conv has no activation");
    check(x.dense() && weight.dense() && (!past.defined() || past.dense()), "temporal_conv: ", x,
          " must be dense");
    check(!out.gate.defined() || (d['G'] > 0 && d['T'] * d['S'] % d['G'] == 0), "temporal_conv: gate ",
          out.gate, " for ", x);
    Tensor y = empty(x.shape(), dtype, x.device());
    launch("temporal_conv", &Kernels::temporal_conv, x.device(), TemporalConvArgs{x, weight, past, out, y});
    record_temporal_conv(x, weight, past, out, y);
    return y;
}

Tensor upsample_nearest(const Tensor& x) {
    DType dtype = same_dtype("upsample_nearest", {&x});
    Dims d = bind_op("upsample_nearest", {{x, "x[B,T,H,W,C]"}});
    check(x.dense(), "upsample_nearest: ", x, " must be dense");
    Tensor y = empty({d['B'], d['T'], 2 * d['H'], 2 * d['W'], d['C']}, dtype, x.device());
    launch("upsample_nearest", &Kernels::upsample_nearest, x.device(), UpsampleNearestArgs{x, y});
    record_upsample_nearest(x, y);
    return y;
}

}  // namespace sana
