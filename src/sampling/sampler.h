// Samplers for flow models: sigma in [0,1] (1 noise, 0 clean), x = (1-sigma) clean + sigma noise, velocity = noise - clean,
// S = flow shift, sh(u) = S u / (1 + (S-1) u), m = x - sigma v the estimate of the clean latents.
// Source: diffusers' DPMSolverMultistepScheduler (dpmsolver++ 2M, midpoint), UniPCMultistepScheduler (bh2, order 2) and
// FlowMatchEulerDiscreteScheduler as SANA-Video configures them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"

namespace sana {

enum class SamplerKind { dpm_solver, unipc, flow_euler };
std::optional<SamplerKind> parse_sampler(std::string_view name);  // dpm, unipc, euler and the long names
std::string_view name_of(SamplerKind kind);                       // "dpm", "unipc", "euler"

// sigmas has one entry more than timesteps and ends in 0. The model is handed timesteps[k] (0..1000): whole numbers for
// DPM-Solver++ and UniPC, although their sigmas are not rounded; fractional ones for Euler.
struct Schedule {
    std::vector<double> sigmas, timesteps;
};

// Values are rounded to fp32 where the reference stores them so. steps in 1..1000, shift > 0, else InputError.
//   dpm:   sigma_k = sh(0.999 (N-k)/N);  unipc: sigma_k = sh(1 - 0.999 k/N);
//   euler: linspace(1, sh(0.001)) shifted once more, as the reference does.
Schedule make_schedule(SamplerKind kind, int64_t steps, double shift);

// One clip's steps, in order. Order 1, 2, ..., 2, 1 for the multistep kinds.
class Sampler {
public:
    // first: the step to begin with, 0 for noise; later ones for latents that have the noise of sigma_first.
    Sampler(SamplerKind kind, int64_t steps, double shift, int64_t first = 0);

    const Schedule& schedule() const { return schedule_; }
    int64_t steps() const { return static_cast<int64_t>(schedule_.timesteps.size()); }
    int64_t position() const { return k_; }

    // x at step position() and the velocity there -> x at the next. x and velocity in fp32 (fp64 in tests).
    Tensor step(const Tensor& x, const Tensor& velocity);
    // The estimate of the clean latents made by the last step().
    const Tensor& clean() const { return m_[0]; }

private:
    Tensor predict(const Tensor& x, int64_t order) const;
    Tensor correct(const Tensor& x) const;
    double lambda(int64_t k) const;

    SamplerKind kind_;
    Schedule schedule_;
    int64_t first_, k_, last_order_ = 0;
    Tensor m_[3];  // estimates of this step and the two before
    Tensor last_;  // UniPC: the corrected sample of the step before
};

}  // namespace sana
