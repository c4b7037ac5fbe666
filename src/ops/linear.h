// Matrix products with what follows them.
#pragma once

#include "core/tensor.h"

namespace sana {

enum class Activation { none, relu, silu, gelu_tanh };

// What a product does to its result y before it is stored: residual + gate * activation(y).
// gate [B,G,O]: of N rows a sample, row n uses group n / (N/G). residual has the shape of the result.
struct Epilogue {
    Activation activation = Activation::none;
    Tensor gate = {};
    Tensor residual = {};
};

// y[...,O] = epilogue(x[...,C] weight[O,C]^T + bias[O]); products and sums in fp32 (fp64 for fp64).
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {}, const Epilogue& out = {});

struct LinearArgs {
    const Tensor &x, &weight, &bias;
    const Epilogue& out;
    Tensor& y;
};

}  // namespace sana
