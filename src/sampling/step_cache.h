// Skips evaluations of the model whose result can be told from the ones before (EasyCache, arXiv 2507.02860). An
// approximation: off unless asked for.
#pragma once

#include <functional>

#include "core/tensor.h"

namespace sana {

// With |.| the mean of absolute values, i a step that was computed and j the one computed before it:
//     k   = |v_i - v_j| / |x_i - x_j|          how strongly the velocity follows its input
//     e_n = k |x_n - x_{n-1}| / |v_i|          estimated change of the velocity at a later step n
// While the sum of e since step i stays below the threshold, v_n = x_n + (v_i - x_i); else the model runs and the sum
// starts again at 0. The first fifth of the steps (at least 2) and the last one are always computed. Sums are made in
// fp64 on the host in a fixed order, so that equal inputs give equal decisions.
class StepCache {
public:
    using Velocity = std::function<Tensor(const Tensor& x, double t)>;

    // threshold > 0 of a clip of `steps` steps; velocity() is called once a step, in order.
    StepCache(double threshold, int64_t steps);

    Tensor velocity(const Tensor& x, double t, const Velocity& model);

    int64_t skipped() const { return skipped_; }

private:
    bool predictable(const Tensor& x);
    void remember(const Tensor& x, const Tensor& v);

    double threshold_, sum_ = 0;
    double gain_ = -1;  // k, below 0: not known yet
    int64_t steps_, step_ = 0, skipped_ = 0;
    Tensor last_x_;                   // of the step before, on the host
    Tensor computed_x_, computed_v_;  // of the last computed step, on the host
    Tensor offset_;                   // v_i - x_i, where the latents live
};

}  // namespace sana
