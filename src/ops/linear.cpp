#include "ops/linear.h"

#include "ops/gradients.h"
#include "ops/kernels.h"

namespace sana {

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const Epilogue& out) {
    DType dtype = same_dtype("linear", {&x, &weight, &bias, &out.gate, &out.residual});
    Dims d = bind_op("linear", {{x, "x[...,C]"}, {weight, "weight[O,C]"}, {bias, "bias[O]", kMayBeNone}});
    check(weight.dense(), "linear: ", weight, " has strided rows");
    Shape shape = x.shape();
    shape[-1] = d['O'];
    if (out.gate.defined()) {
        Dims g = bind_op("linear", {{x, "x[B,N,C]"}, {out.gate, "gate[B,G,O]"}});
        check(g['O'] == d['O'] && g['G'] > 0 && g['N'] % g['G'] == 0, "linear: gate ", out.gate,
              " for a result of shape ", shape);
    }
    check(!out.residual.defined() || out.residual.shape() == shape, "linear: residual ", out.residual,
          " for a result of shape ", shape);
    Tensor y = empty(shape, dtype, x.device());
    launch("linear", &Kernels::linear, x.device(), LinearArgs{x, weight, bias, out, y});
    record_linear(x, weight, bias, out, y);
    return y;
}

}  // namespace sana
