#include "ops/fp8.h"

#include <algorithm>

#include "ops/conv.h"
#include "ops/glu_fp8.h"
#include "ops/gradients.h"
#include "ops/kernels.h"
#include "ops/layout.h"

namespace sana {

namespace {

Fp8 empty_codes(const Shape& shape, Device device) {
    Shape rows;
    for (int i = 0; i + 1 < shape.rank(); ++i) rows.push_back(shape[i]);
    return {empty(shape, DType::F8E4M3, device), empty(rows, DType::F32, device)};
}

void check_codes(const char* op, const Fp8& x) {
    check(x.defined() && x.codes.dtype() == DType::F8E4M3 && x.codes.dense() &&
              x.scale.dtype() == DType::F32 && x.scale.numel() == x.codes.rows() &&
              x.scale.device() == x.codes.device(),
          op, ": codes ", x.codes, " with scales ", x.scale, " are not E4M3 with an fp32 scale a row");
}

}  // namespace

Fp8 quantise(const Tensor& x) {
    same_dtype("quantise", {&x});
    check(x.rank() >= 1, "quantise: ", x, " has no rows");
    Fp8 y = empty_codes(x.shape(), x.device());
    launch("quantise", &Kernels::quantise, x.device(), QuantiseArgs{x, y});
    record_none("quantise", {&x});
    return y;
}

Tensor dequantise(const Fp8& x, DType dtype) {
    check_codes("dequantise", x);
    Tensor y = empty(x.codes.shape(), dtype, x.codes.device());
    launch("dequantise", &Kernels::dequantise, y.device(), DequantiseArgs{x, y});
    return y;
}

Tensor linear(const Fp8& x, const Fp8& weight, const Tensor& bias, const Epilogue& out, DType dtype) {
    check_codes("linear", x);
    check_codes("linear", weight);
    Dims d = bind_op("linear",
                     {{x.codes, "x[...,C]"}, {weight.codes, "weight[O,C]"}, {bias, "bias[O]", kMayBeNone}});
    Shape shape = x.codes.shape();
    shape[-1] = d['O'];
    for (const Tensor* operand : {&bias, &out.gate, &out.residual}) {
        check(!operand->defined() || operand->dtype() == dtype, "linear: ", *operand, " for a result of ",
              dtype, "; convert it with .to(", dtype, ")");
        check_device("linear", *operand, x.codes);
    }
    check_device("linear", weight.codes, x.codes);
    if (out.gate.defined()) {
        Dims g = bind_op("linear", {{x.codes, "x[B,N,C]"}, {out.gate, "gate[B,G,O]"}});
        check(g['O'] == d['O'] && g['G'] > 0 && g['N'] % g['G'] == 0, "linear: gate ", out.gate,
              " for a result of shape ", shape);
    }
    check(!out.residual.defined() || out.residual.shape() == shape, "linear: residual ", out.residual,
          " for a result of shape ", shape);
    Tensor y = empty(shape, dtype, x.codes.device());
    launch("linear", &Kernels::linear_fp8, y.device(), LinearFp8Args{x, weight, bias, out, y});
    record_none("linear of fp8", {&bias, &out.gate, &out.residual});
    return y;
}

Tensor linear(const Tensor& x, const Fp8& weight, const Tensor& bias, const Epilogue& out) {
    return linear(quantise(x), weight, bias, out, x.dtype());
}

Tensor temporal_conv(const Tensor& x, const Fp8& weight, const Tensor& past, const Epilogue& out) {
    DType dtype = same_dtype("temporal_conv", {&x, &past, &out.gate, &out.residual});
    check_codes("temporal_conv", weight);
    check_device("temporal_conv", weight.codes, x);
    Dims d = bind_op("temporal_conv", {{x, "x[B,T,S,C]"},
                                       {past, "past[B,1,S,C]", kMayBeNone},
                                       {out.residual, "residual[B,T,S,C]", kMayBeNone},
                                       {out.gate, "gate[B,G,C]", kMayBeNone}});
    check(weight.codes.shape() == Shape({d['C'], 3 * d['C']}), "temporal_conv: weight ", weight.codes,
          " for ", x);
    check(out.activation == Activation::none, "temporal_conv has no activation");
    check(x.dense() && (!past.defined() || past.dense()), "temporal_conv: ", x, " must be dense");
    check(!out.gate.defined() || (d['G'] > 0 && d['T'] * d['S'] % d['G'] == 0), "temporal_conv: gate ",
          out.gate, " for ", x);
    Tensor y = empty(x.shape(), dtype, x.device());
    Fp8 codes = quantise(past.defined() ? concat({past, x}, 1) : x);
    launch("temporal_conv", &Kernels::temporal_conv_fp8, x.device(),
           TemporalConvFp8Args{x, codes, weight, out, y});
    record_none("temporal_conv of fp8", {&x, &past, &out.gate, &out.residual});
    return y;
}

Fp8 layer_norm_modulate_fp8(const Tensor& x, const Tensor& shift, const Tensor& scale, float eps) {
    same_dtype("layer_norm_modulate_fp8", {&x, &shift, &scale});
    Dims d = bind_op("layer_norm_modulate_fp8",
                     {{x, "x[B,N,C]"}, {shift, "shift[B,G,C]"}, {scale, "scale[B,G,C]"}});
    check(d['G'] > 0 && d['N'] % d['G'] == 0, "layer_norm_modulate_fp8: G must divide N: ", d);
    Fp8 y = empty_codes(x.shape(), x.device());
    launch("layer_norm_modulate_fp8", &Kernels::layer_norm_modulate_fp8, x.device(),
           LayerNormModulateFp8Args{x, shift, scale, eps, y});
    record_none("layer_norm_modulate_fp8", {&x, &shift, &scale});
    return y;
}

GluSample glu_sample(const Shape& x) {
    constexpr int64_t kRows = 6;
    int64_t rows = std::min(kRows, x[2]);
    // A multiple of kRows, as kernels walk over strips of so many.
    return {{0, x[0] * x[1] / 2}, std::min(x[2] / 2 / kRows * kRows, x[2] - rows), rows};
}

Fp8 depthwise_glu_fp8(const Tensor& x, const Tensor& weight, const Tensor& bias) {
    same_dtype("depthwise_glu_fp8", {&x, &weight, &bias});
    Dims d = bind_op("depthwise_glu_fp8",
                     {{x, "x[B,T,H,W,F]"}, {weight, "weight[3,3,F]"}, {bias, "bias[F]", kMayBeNone}});
    check(x.dense() && weight.dense() && d['F'] % 2 == 0, "depthwise_glu_fp8: ", x,
          " must be dense with an even width");
    Fp8 y = empty_codes({d['B'], d['T'], d['H'], d['W'], d['F'] / 2}, x.device());
    launch("depthwise_glu_fp8", &Kernels::depthwise_glu_fp8, x.device(),
           DepthwiseGluFp8Args{x, weight, bias, y});
    record_none("depthwise_glu_fp8", {&x, &weight, &bias});
    return y;
}

}  // namespace sana
