// Products of E4M3: 8-bit floats (4 bits of exponent, 3 of mantissa, largest
// 448, no infinity) with a scale a row. Scales are powers of two, so that a
// code times its scale is exact in bf16 and fp32: a product of codes is the
// ordinary product of dequantised operands, which is what devices without 8-bit
// tensor cores compute.
#pragma once

#include "ops/linear.h"

namespace sana {

// Rows x ~ codes * scale of the row.
struct Fp8 {
    Tensor codes;  // F8E4M3 [...,C], dense
    Tensor scale;  // fp32 [...]: a row's power of two
    bool defined() const { return codes.defined(); }
    int64_t bytes() const { return codes.bytes() + scale.bytes(); }
};

// scale = the smallest power of two with max |x row| <= 448 scale (1 for a row
// of zeros, NaN for one that is not finite), codes = x / scale, rounded to the
// nearest, ties to even. x [...,C] of any float dtype, read as fp32.
Fp8 quantise(const Tensor& x);
// codes * scale, exact but for fp16's range.
Tensor dequantise(const Fp8& x, DType dtype);

// y[...,O] = epilogue(x weight^T + bias) of the values that the codes stand
// for, sums in fp32 (the tensor cores of Hopper keep 13 bits below the largest
// term of a sum), one rounding to dtype, which is also that of bias, gate and
// residual. x [...,C], weight [O,C]
Tensor linear(const Fp8& x, const Fp8& weight, const Tensor& bias, const Epilogue& out, DType dtype);
// The same of an x that is quantised on its way.
Tensor linear(const Tensor& x, const Fp8& weight, const Tensor& bias = {}, const Epilogue& out = {});

// temporal_conv (ops/conv.h) with x and past quantised for the product, not
// where x is added.   weight [C,3C]
Tensor temporal_conv(const Tensor& x, const Fp8& weight, const Tensor& past, const Epilogue& out);

// quantise(layer_norm_modulate(x, shift, scale)) (ops/norm.h), of the result
// before its rounding.
Fp8 layer_norm_modulate_fp8(const Tensor& x, const Tensor& shift, const Tensor& scale, float eps = 1e-6f);

struct QuantiseArgs {
    const Tensor& x;
    Fp8& y;
};
struct DequantiseArgs {
    const Fp8& x;
    Tensor& y;
};
struct LinearFp8Args {
    const Fp8 &x, &weight;
    const Tensor& bias;
    const Epilogue& out;
    Tensor& y;
};
struct TemporalConvFp8Args {
    const Tensor& x;   // [B,T,S,C]
    const Fp8& codes;  // of past ++ x: [B,P+T,S,C]
    const Fp8& weight;
    const Epilogue& out;
    Tensor& y;
};
struct LayerNormModulateFp8Args {
    const Tensor &x, &shift, &scale;
    float eps;
    Fp8& y;
};

}  // namespace sana
