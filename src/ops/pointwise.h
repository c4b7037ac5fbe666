// Elementwise operations. Arithmetic in fp32 (fp64 for fp64), one rounding at the end; shapes equal unless stated.
#pragma once

#include <utility>
#include <vector>

#include "core/tensor.h"
#include "ops/linear.h"

namespace sana {

Tensor activate(const Tensor& x, Activation activation);
Tensor add(const Tensor& a, const Tensor& b);
Tensor gelu_multiply(const Tensor& gate, const Tensor& up);  // gelu_tanh(gate) * up
Tensor clamp(const Tensor& x, float low, float high);

// y[...,c] = x[...,c] * scale[c] + shift[c]; either may be none.   x [...,C], scale, shift [C]
Tensor affine(const Tensor& x, const Tensor& scale, const Tensor& shift);

// y = sum_i factor_i * x_i (at most 4 terms), the arithmetic of samplers and guidance.
using Term = std::pair<double, Tensor>;
Tensor combine(const std::vector<Term>& terms);

// y[...,j] = mean of the `group` consecutive channels x[..., j*group .. (j+1)*group).   [...,C] -> [...,C/group]
Tensor group_mean(const Tensor& x, int64_t group);

struct ActivateArgs {
    const Tensor& x;
    Activation activation;
    Tensor& y;
};
struct BinaryArgs {
    const Tensor &a, &b;
    Tensor& y;
};
struct ClampArgs {
    const Tensor& x;
    float low, high;
    Tensor& y;
};
struct AffineArgs {
    const Tensor &x, &scale, &shift;
    Tensor& y;
};
struct CombineArgs {
    const std::vector<Term>& terms;
    Tensor& y;
};
struct GroupMeanArgs {
    const Tensor& x;
    int64_t group;
    Tensor& y;
};

}  // namespace sana
