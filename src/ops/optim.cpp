#include "ops/optim.h"

#include <cmath>

#include "ops/gradients.h"

namespace sana {

namespace {

constexpr int64_t kPartial = 1024;

void check_slab(const char* op, const Tensor& x, const Tensor& weights) {
    check(x.defined() && x.dtype() == DType::F32 && x.dense() && x.numel() == weights.numel() &&
              x.device() == weights.device(),
          op, ": ", x, " must be a dense fp32 tensor like the weights ", weights);
}

void check_step(const char* op, const Tensor& gradient, const Tensor& weights, const Tensor& copy) {
    check_slab(op, weights, weights);
    check(gradient.defined() && gradient.dense() && gradient.numel() == weights.numel() &&
              gradient.device() == weights.device(),
          op, ": gradient ", gradient, " for the weights ", weights);
    check(!copy.defined() || (copy.dense() && copy.numel() == weights.numel() &&
                              copy.device() == weights.device() && copy.dtype() == gradient.dtype()),
          op, ": copy ", copy, " for the weights ", weights, " and the gradient ", gradient);
}

}  // namespace

double square_sum(const Tensor& x) {
    check(x.defined() && x.dense(), "square_sum: ", x, " must be dense");
    Tensor partial = zeros({kPartial}, DType::F64, x.device());
    launch_gradient("square_sum", &GradientKernels::square_sum, x.device(), SquareSumArgs{x, partial});
    double sum = 0;
    for (double part : to_vector<double>(partial)) sum += part;
    return sum;
}

void adamw(const AdamWOptions& options, const Tensor& gradient, Tensor weights, Tensor m, Tensor v,
           Tensor copy) {
    check_step("adamw", gradient, weights, copy);
    check_slab("adamw", m, weights);
    check_slab("adamw", v, weights);
    check(options.step >= 1, "adamw: steps are counted from 1, not ", options.step);
    launch_gradient("adamw", &GradientKernels::adamw, weights.device(),
                    AdamWArgs{options, gradient, weights, m, v, copy});
}

// With g = factor * gradient and q = g^2 + eps1:
//   rows = b2 rows + (1 - b2) mean_c q,  columns = b2 columns + (1 - b2) mean_r q
//   u = g / sqrt(rows / mean(rows)) / sqrt(columns), then u /= max(1, rms(u) / clip)
//   m = b1 m + (1 - b1) u;  d = (u - m)^2 + eps2, averaged like q with b3
//   w -= rate * (m / sqrt(doubt_rows / mean(doubt_rows)) / sqrt(doubt_columns) + decay * w)
// A vector: columns = b2 columns + (1 - b2) q, u = g / sqrt(columns), clipped; w -= rate * (m + decay * w).
void came(const CameOptions& options, const Tensor& gradient, Tensor weights, CameState state, Tensor copy) {
    check_step("came", gradient, weights, copy);
    check_slab("came", state.m, weights);
    int64_t rows = state.rows.defined() ? state.rows.numel() : 1;
    check(rows > 0 && state.columns.defined() && rows * state.columns.numel() == weights.numel(),
          "came: state ", state.rows, " and ", state.columns, " for the weights ", weights);
    launch_gradient("came", &GradientKernels::came, weights.device(),
                    CameArgs{options, gradient, weights, state, copy});
}

Tensor orthogonalise(const Tensor& x) {
    bool real = x.dtype() == DType::F32 || (x.dtype() == DType::F64 && x.device() == kCpu);
    check(x.defined() && x.rank() == 3 && x.dense() && real, "orthogonalise: ", x,
          " must be dense matrices [B,n,m] in fp32");
    Tensor y = empty_like(x);
    if (x.numel() > 0)
        launch_gradient("orthogonalise", &GradientKernels::orthogonalise, x.device(),
                        OrthogonaliseArgs{x, y});
    record_none("orthogonalise", {&x});
    return y;
}

void muon(const MuonOptions& options, const Tensor& gradient, Tensor weights, Tensor m, Tensor copy) {
    check_step("muon", gradient, weights, copy);
    check_slab("muon", m, weights);
    check(weights.rank() == 3, "muon: the weights ", weights, " must be matrices [B,n,m]");
    Tensor update = empty_like(weights);
    launch_gradient("muon", &GradientKernels::muon_moment, weights.device(),
                    MuonMomentArgs{options, gradient, m, update});
    update = orthogonalise(update);
    double scale = 0.2 * std::sqrt(static_cast<double>(std::max(weights.dim(1), weights.dim(2))));
    launch_gradient("muon", &GradientKernels::muon_step, weights.device(),
                    MuonStepArgs{options, scale, update, weights, copy});
}

void average_step(double rate, const Tensor& weights, Tensor average) {
    check_slab("average_step", average, weights);
    check_slab("average_step", weights, weights);
    launch_gradient("average_step", &GradientKernels::average, weights.device(),
                    AverageArgs{rate, weights, average});
}

}  // namespace sana
