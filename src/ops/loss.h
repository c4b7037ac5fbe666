// What training minimises. Results are scalars [1] in fp32 (fp64 for fp64), whatever the dtype of the inputs; sums in a
// fixed order.
#pragma once

#include "core/tensor.h"

namespace sana {

enum class LossKind { squared, absolute };

// sum_g weight_g * sum over the elements of group g of f(x - target), f(d) = d^2 or |d|. The G groups are equal parts of
// x in order (G = B*T for a weight a frame of [B,T,...]); without weights every element counts 1 / numel (a mean).
// target: the shape of x, of its dtype or fp32; weight [G] fp32. Gradients reach x alone.
Tensor difference_loss(const Tensor& x, const Tensor& target, LossKind kind, const Tensor& weight = {});

// factor * sum (mean^2 + exp(logvar) - 1 - logvar) / 2: the divergence of N(mean, exp(logvar)) from N(0, 1).
Tensor kl_loss(const Tensor& mean, const Tensor& logvar, double factor);

// mean + exp(logvar / 2) * noise
Tensor gaussian_sample(const Tensor& mean, const Tensor& logvar, const Tensor& noise);

// The value of a scalar, read back from its device.
double item(const Tensor& scalar);

struct DifferenceLossArgs {
    const Tensor &x, &target, &weight;
    LossKind kind;
    Tensor &value, &dx;  // dx: the gradient of value
};
struct KlLossArgs {
    const Tensor &mean, &logvar;
    double factor;
    Tensor &value, &dmean, &dlogvar;
};
struct GaussianSampleArgs {
    const Tensor &mean, &logvar, &noise;
    Tensor& y;
};
// dlogvar = dy * noise * exp(logvar / 2) / 2
struct GaussianSampleGradArgs {
    const Tensor &logvar, &noise, &dy;
    Tensor& dlogvar;
};

}  // namespace sana
