// Steps of optimisers on flat fp32 slabs: master weights and moments, each [P] dense. Gradients are of any dtype and are
// multiplied by a factor (clipping, accumulation) on their way in.
#pragma once

#include "core/tensor.h"

namespace sana {

// The sum of squares of all elements, read back from the device. Partial sums in fp32, their sum in fp64; a NaN or an
// infinity anywhere makes the result so.
double square_sum(const Tensor& x);

// AdamW (Loshchilov and Hutter 2019) with decoupled decay:
//   m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,  w -= rate * (mh / (sqrt(vh) + eps) + decay * w)
// mh = m / (1 - b1^step), vh = v / (1 - b2^step), step counted from 1.
struct AdamWOptions {
    double rate = 1e-4, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-10, decay = 0;
    int64_t step = 1;
    double factor = 1;  // g = factor * gradient
};
// copy: the weights as the model computes with them (any dtype), or none; gets the new weights, rounded.
void adamw(const AdamWOptions& options, const Tensor& gradient, Tensor weights, Tensor m, Tensor v,
           Tensor copy);

// CAME (Luo et al. 2023) of one parameter [R,C]; see optim.cpp for the formulas. rows, columns and their counterparts of
// the confidence are [R] and [C]; a vector has R = 1 and keeps its second moment in full in `columns`.
struct CameOptions {
    double rate = 1e-4, beta1 = 0.9, beta2 = 0.999, beta3 = 0.9999, epsilon1 = 1e-30, epsilon2 = 1e-16,
           clip = 1, decay = 0;
    double factor = 1;
};
struct CameState {
    Tensor m;                          // [R,C]
    Tensor rows, columns;              // [R], [C]: averages of g^2
    Tensor doubt_rows, doubt_columns;  // [R], [C]: averages of (u - m)^2
};
void came(const CameOptions& options, const Tensor& gradient, Tensor weights, CameState state, Tensor copy);

// Every matrix of x [B,n,m] with its singular vectors kept and its singular values brought near 1 (0.68 to 1.2; those
// below 0.002 of the norm stay smaller): X = x / (||x||_F + 1e-7), then five times, with A = X X^T,
//   X = a X + (b A + c A^2) X,  a, b, c = 3.4445, -4.7750, 2.0315
// or the same from the right with A = X^T X when m is smaller. x in fp32, fp64 for the oracle; on CUDA the products have
// fp16 operands and fp32 sums.
Tensor orthogonalise(const Tensor& x);

// Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon/) of B matrices [B,n,m], with Nesterov's momentum and the
// scale of Moonlight (arXiv 2502.16982), which gives steps the size that AdamW's have, so that both go with one rate:
//   m = beta m + g,  w -= rate * (0.2 sqrt(max(n, m)) orthogonalise(g + beta m) + decay * w)
struct MuonOptions {
    double rate = 1e-4, beta = 0.95, decay = 0;
    double factor = 1;
};
void muon(const MuonOptions& options, const Tensor& gradient, Tensor weights, Tensor m, Tensor copy);

// average += (1 - rate) * (weights - average), in fp32.
void average_step(double rate, const Tensor& weights, Tensor average);

struct SquareSumArgs {
    const Tensor& x;
    Tensor& partial;  // [n] fp64, filled with partial sums
};
struct AdamWArgs {
    const AdamWOptions& options;
    const Tensor& gradient;
    Tensor &weights, &m, &v, &copy;
};
// The four passes of came(): see optim.cpp.
struct CameArgs {
    const CameOptions& options;
    const Tensor& gradient;
    Tensor& weights;
    CameState& state;
    Tensor& copy;
};
constexpr int kOrthogonaliseSteps = 5;
constexpr double kOrthogonaliseEpsilon = 1e-7, kOrthogonaliseA = 3.4445, kOrthogonaliseB = -4.7750,
                 kOrthogonaliseC = 2.0315;
struct OrthogonaliseArgs {
    const Tensor& x;
    Tensor& y;
};
// The two passes of muon() around orthogonalise(): m and what is made orthogonal; the weights.
struct MuonMomentArgs {
    const MuonOptions& options;
    const Tensor& gradient;
    Tensor &m, &update;
};
struct MuonStepArgs {
    const MuonOptions& options;
    double scale;
    const Tensor& update;
    Tensor &weights, &copy;
};
struct AverageArgs {
    double rate;
    const Tensor& weights;
    Tensor& average;
};

}  // namespace sana
