// A linear layer.
#pragma once

#include <cmath>

#include "nn/fp8.h"
#include "ops/linear.h"

namespace sana {

// y[...,O] = epilogue(x[...,C] weight^T + bias)
struct Linear {
    Parameter weight;  // [O,C]
    Parameter bias;    // [O] or absent

    Linear() = default;
    Linear(int64_t in, int64_t out, bool with_bias = true) {
        weight = same_layout({out, in}, {.std = 1 / std::sqrt(static_cast<double>(in))});
        weight.factor = true;
        if (with_bias) bias = same_layout({out}, {});
    }

    // A 1x1 convolution of the checkpoint: [O,C,1,1] for spatial_dims = 2, [O,C,1,1,1] for 3.
    static Linear from_conv(int64_t in, int64_t out, bool with_bias, int spatial_dims) {
        Linear layer(in, out, with_bias);
        for (int i = 0; i < spatial_dims; ++i) layer.weight.stored.push_back(1);
        return layer;
    }

    Tensor forward(const Tensor& x, const Epilogue& out = {}) const {
        if (!weight.codes.defined()) return linear(x, weight.value, bias.value, out);
        if (!weight.value.defined()) return linear(x, weight.codes, bias.value, out);
        Fp8Study::add(weight.value.name(), linear(x, weight.codes), linear(x, weight.value));
        return linear(x, weight.value, bias.value, out);
    }
    // Whether inputs are wanted as codes.
    bool by_codes() const { return weight.codes.defined() && !weight.value.defined(); }
    // Of rows that their maker has quantised; only for a weight of codes. The result is of `dtype`.
    Tensor forward(const Fp8& x, DType dtype, const Epilogue& out = {}) const {
        return linear(x, weight.codes, bias.value, out, dtype);
    }
    void visit(auto& v) {
        v("weight", weight);
        v("bias", bias);
    }
};

}  // namespace sana
