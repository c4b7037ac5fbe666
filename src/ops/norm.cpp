#include "ops/norm.h"

#include "ops/gradients.h"
#include "ops/kernels.h"

namespace sana {

Tensor layer_norm_modulate(const Tensor& x, const Tensor& shift, const Tensor& scale, float eps) {
    DType dtype = same_dtype("layer_norm_modulate", {&x, &shift, &scale});
    Dims d =
        bind_op("layer_norm_modulate", {{x, "x[B,N,C]"}, {shift, "shift[B,G,C]"}, {scale, "scale[B,G,C]"}});
    check(d['G'] > 0 && d['N'] % d['G'] == 0, "layer_norm_modulate: G must divide N: ", d);
    Tensor y = empty(x.shape(), dtype, x.device());
    launch("layer_norm_modulate", &Kernels::layer_norm_modulate, x.device(),
           LayerNormModulateArgs{x, shift, scale, eps, y});
    record_layer_norm_modulate(x, shift, scale, eps, y);
    return y;
}

Tensor rms_norm(const Tensor& x, const Tensor& weight, const RmsNormOptions& options) {
    DType dtype = same_dtype("rms_norm", {&x, &weight});
    bind_op("rms_norm", {{x, "x[...,C]"}, {weight, "weight[C]", kMayBeNone}});
    Tensor y = empty(x.shape(), dtype, x.device());
    launch("rms_norm", &Kernels::rms_norm, x.device(), RmsNormArgs{x, weight, options, y});
    record_rms_norm(x, weight, options, y);
    return y;
}

}  // namespace sana
