#include "ops/pointwise.h"

#include "ops/gradients.h"
#include "ops/kernels.h"

namespace sana {

Tensor activate(const Tensor& x, Activation activation) {
    DType dtype = same_dtype("activate", {&x});
    Tensor y = empty(x.shape(), dtype, x.device());
    launch("activate", &Kernels::activate, x.device(), ActivateArgs{x, activation, y});
    record_activate(x, activation, y);
    return y;
}

Tensor add(const Tensor& a, const Tensor& b) {
    DType dtype = same_dtype("add", {&a, &b});
    check(a.defined() && b.defined() && a.shape() == b.shape(), "add: ", a, " and ", b);
    Tensor y = empty(a.shape(), dtype, a.device());
    launch("add", &Kernels::add, a.device(), BinaryArgs{a, b, y});
    record_add(a, b, y);
    return y;
}

Tensor gelu_multiply(const Tensor& gate, const Tensor& up) {
    DType dtype = same_dtype("gelu_multiply", {&gate, &up});
    check(gate.defined() && up.defined() && gate.shape() == up.shape(), "gelu_multiply: ", gate, " and ", up);
    Tensor y = empty(gate.shape(), dtype, gate.device());
    launch("gelu_multiply", &Kernels::gelu_multiply, gate.device(), BinaryArgs{gate, up, y});
    record_gelu_multiply(gate, up, y);
    return y;
}

Tensor clamp(const Tensor& x, float low, float high) {
    DType dtype = same_dtype("clamp", {&x});
    Tensor y = empty(x.shape(), dtype, x.device());
    launch("clamp", &Kernels::clamp, x.device(), ClampArgs{x, low, high, y});
    record_clamp(x, low, high, y);
    return y;
}

Tensor affine(const Tensor& x, const Tensor& scale, const Tensor& shift) {
    DType dtype = same_dtype("affine", {&x, &scale, &shift});
    bind_op("affine", {{x, "x[...,C]"}, {scale, "scale[C]", kMayBeNone}, {shift, "shift[C]", kMayBeNone}});
    Tensor y = empty(x.shape(), dtype, x.device());
    launch("affine", &Kernels::affine, x.device(), AffineArgs{x, scale, shift, y});
    record_affine(x, scale, shift, y);
    return y;
}

Tensor combine(const std::vector<Term>& terms) {
    check(!terms.empty() && terms.size() <= 4, "combine takes 1 to 4 terms, not ", terms.size());
    const Tensor& first = terms[0].second;
    for (const auto& [factor, x] : terms) {
        same_dtype("combine", {&first, &x});
        check(x.defined() && first.defined() && x.shape() == first.shape(), "combine: ", x, " and ", first);
    }
    Tensor y = empty(first.shape(), first.dtype(), first.device());
    launch("combine", &Kernels::combine, first.device(), CombineArgs{terms, y});
    record_combine(terms, y);
    return y;
}

Tensor group_mean(const Tensor& x, int64_t group) {
    DType dtype = same_dtype("group_mean", {&x});
    check(group > 0 && x.cols() % group == 0, "group_mean: groups of ", group, " channels in ", x);
    Shape shape = x.shape();
    shape[-1] /= group;
    Tensor y = empty(shape, dtype, x.device());
    launch("group_mean", &Kernels::group_mean, x.device(), GroupMeanArgs{x, group, y});
    record_group_mean(x, group, y);
    return y;
}

}  // namespace sana
