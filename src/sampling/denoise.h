// From noise to latents.
#pragma once

#include <functional>

#include "sampling/sampler.h"

namespace sana {

// v_negative + scale * (v_positive - v_negative)
Tensor guide(const Tensor& negative, const Tensor& positive, double scale);

struct DenoiseHooks {
    // After step k of n: the latents and the estimate of the clean ones.
    std::function<void(int64_t k, int64_t n, const Tensor& x, const Tensor& clean)> on_step;
    std::function<bool()> cancelled;  // asked between steps; true: throws Cancelled
};

// x [B,T,H,W,Z] fp32; velocity(x, t) is the model with guidance, t in 0..1000. The first keep_frames frames stay as they
// are to the last bit (image to video): they are handed to the model, and its velocity for them is not used.
Tensor denoise(Tensor x, Sampler& sampler, int64_t keep_frames,
               const std::function<Tensor(const Tensor& x, double t)>& velocity,
               const DenoiseHooks& hooks = {});

}  // namespace sana
