// Normalisations over the last dimension. Statistics in fp32 (fp64 for fp64), one rounding at the end.
#pragma once

#include "core/tensor.h"
#include "ops/linear.h"

namespace sana {

// y = (x - mean(x)) / sqrt(var(x) + eps) * (1 + scale) + shift.   x [B,N,C]; shift, scale [B,G,C], G divides N:
// row n uses group n / (N/G).
Tensor layer_norm_modulate(const Tensor& x, const Tensor& shift, const Tensor& scale, float eps = 1e-6f);

struct LayerNormModulateArgs {
    const Tensor &x, &shift, &scale;
    float eps;
    Tensor& y;
};

// y = activation(x * r * (weight_offset + weight)); without a weight the last factor is 1.   x [...,C], weight [C]
//   floor = 0:  r = 1 / sqrt(mean(x^2) + eps)
//   floor > 0:  r = sqrt(C) / max(sqrt(sum(x^2)), floor)           (Wan VAE: an L2 norm with a floor, no eps)
struct RmsNormOptions {
    float eps = 1e-5f;
    float floor = 0;
    float weight_offset = 0;  // 1 for Gemma, whose weights are stored without it
    Activation activation = Activation::none;
};
Tensor rms_norm(const Tensor& x, const Tensor& weight, const RmsNormOptions& options);

struct RmsNormArgs {
    const Tensor &x, &weight;
    const RmsNormOptions& options;
    Tensor& y;
};

}  // namespace sana
