#include "ops/loss.h"

#include "ops/gradients.h"
#include "ops/kernels.h"

namespace sana {

namespace {

Tensor scalar_for(const Tensor& x) {
    return empty({1}, x.dtype() == DType::F64 ? DType::F64 : DType::F32, x.device());
}

// Carries the gradient of a scalar on to x, given the scalar's derivative dx.
void carry_scalar(Tape& tape, const Tensor& x, const Tensor& dx, const Tensor& dy) {
    if (!tape.needs(x)) return;
    Tensor flat = dx.reshape({1, dx.numel()});  // the record's own: it may be written
    launch_gradient("scale_all", &GradientKernels::scale_all, x.device(), ScaleAllArgs{dy, flat});
    tape.accumulate(x, dx);
}

}  // namespace

double item(const Tensor& scalar) {
    check(scalar.numel() == 1, "the value of ", scalar, ", which is not a scalar");
    return to_vector<double>(scalar)[0];
}

Tensor difference_loss(const Tensor& x, const Tensor& target, LossKind kind, const Tensor& weight) {
    check(x.defined() && target.defined() && x.shape() == target.shape() && x.dense() && target.dense() &&
              x.numel() > 0,
          "difference_loss: ", x, " and ", target);
    check(target.dtype() == x.dtype() || target.dtype() == DType::F32, "difference_loss: target ", target,
          " for ", x);
    check_device("difference_loss", target, x);
    if (weight.defined()) {
        check(weight.rank() == 1 && weight.dtype() == DType::F32 && x.numel() % weight.numel() == 0,
              "difference_loss: weight ", weight, " for ", x);
        check_device("difference_loss", weight, x);
    }
    Tensor value = scalar_for(x), dx = empty(x.shape(), x.dtype(), x.device());
    launch_gradient("difference_loss", &GradientKernels::difference_loss, x.device(),
                    DifferenceLossArgs{x, target, weight, kind, value, dx});
    return record({&x}, value, [=](Tape& tape, const Tensor& dy) { carry_scalar(tape, x, dx, dy); });
}

Tensor kl_loss(const Tensor& mean, const Tensor& logvar, double factor) {
    same_dtype("kl_loss", {&mean, &logvar});
    check(mean.shape() == logvar.shape() && mean.dense() && logvar.dense() && mean.numel() > 0,
          "kl_loss: ", mean, " and ", logvar);
    Tensor value = scalar_for(mean), dmean = empty(mean.shape(), mean.dtype(), mean.device()),
           dlogvar = empty(mean.shape(), mean.dtype(), mean.device());
    launch_gradient("kl_loss", &GradientKernels::kl_loss, mean.device(),
                    KlLossArgs{mean, logvar, factor, value, dmean, dlogvar});
    return record({&mean, &logvar}, value, [=](Tape& tape, const Tensor& dy) {
        carry_scalar(tape, mean, dmean, dy);
        carry_scalar(tape, logvar, dlogvar, dy);
    });
}

Tensor gaussian_sample(const Tensor& mean, const Tensor& logvar, const Tensor& noise) {
    DType dtype = same_dtype("gaussian_sample", {&mean, &logvar, &noise});
    check(mean.shape() == logvar.shape() && mean.shape() == noise.shape() && mean.dense() && logvar.dense() &&
              noise.dense(),
          "gaussian_sample: ", mean, ", ", logvar, " and ", noise);
    Tensor y = empty(mean.shape(), dtype, mean.device());
    launch_gradient("gaussian_sample", &GradientKernels::gaussian_sample, mean.device(),
                    GaussianSampleArgs{mean, logvar, noise, y});
    return record({&mean, &logvar}, y, [=](Tape& tape, const Tensor& dy) {
        tape.accumulate(mean, dy);
        if (!tape.needs(logvar)) return;
        Tensor dlogvar = empty(logvar.shape(), dtype, logvar.device());
        launch_gradient("gaussian_sample", &GradientKernels::gaussian_sample_logvar, mean.device(),
                        GaussianSampleGradArgs{logvar, noise, dy, dlogvar});
        tape.accumulate(logvar, dlogvar);
    });
}

}  // namespace sana
