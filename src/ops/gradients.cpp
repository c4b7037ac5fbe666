#include "ops/gradients.h"

#include "ops/kernels.h"

namespace sana {

namespace {

// [...,C] as one sample of rows: the sum over all rows becomes a group_sum with one group.
Tensor as_rows(const Tensor& x) { return x.contiguous().reshape({1, x.rows(), x.cols()}); }

Tensor row_sum(const Tensor& a, const Tensor& b = {}) {
    return group_sum(as_rows(a), b.defined() ? as_rows(b) : Tensor(), 1).reshape({a.cols()});
}

Tensor product(const Tensor& a, const Tensor& b, bool a_transposed) {
    Tensor y = empty({a_transposed ? a.cols() : a.rows(), b.cols()}, a.dtype(), a.device());
    launch_gradient("linear", &GradientKernels::product, a.device(),
                    ProductArgs{a, b, a_transposed, false, y});
    return y;
}

// a [...,P], b [...,Q] of M rows each -> a^T b [P,Q]
Tensor product_over_rows(const Tensor& a, const Tensor& b) { return product(a, b, true); }

Tensor activate_grad(const Tensor& x, const Tensor& dy, Activation activation) {
    if (activation == Activation::none) return dy;
    Tensor dx = empty(x.shape(), x.dtype(), x.device());
    launch_gradient("activate", &GradientKernels::activate, x.device(),
                    ActivateGradArgs{x, dy, activation, dx});
    return dx;
}

}  // namespace

void record_none(const char* op, std::initializer_list<const Tensor*> inputs) {
    Tape* tape = Tape::current();
    if (tape == nullptr) return;
    for (const Tensor* input : inputs)
        check(!tape->needs(*input), op, " of ", *input, ": this op has no derivative");
}

namespace {

// One gate for all rows, not followed by an activation: u need not be computed again. With P = x^T dy,
//   dgate = sum_c (P * W^T) + b * sum dy,  dW^T = P * gate,  dx = dy (gate * W).
bool one_gate(const Epilogue& out) {
    return out.gate.defined() && out.activation == Activation::none && out.gate.dim(0) * out.gate.dim(1) == 1;
}

// Rows of x times one row, [M,O] * [O].
Tensor times_row(const Tensor& x, const Tensor& row) {
    return group_scale(as_rows(x), row.contiguous().reshape({1, 1, row.numel()})).reshape(x.shape());
}

void gated_linear_grad(Tape& tape, const Tensor& x, const Tensor& weight, const Tensor& bias,
                       const Tensor& gate, const Tensor& dy) {
    Tensor turned = permute(weight, {1, 0});  // [C,O]
    if (tape.needs(weight) || tape.needs(gate)) {
        Tensor sums = product(x, dy, true);
        if (tape.needs(gate)) tape.accumulate(gate, row_sum(sums, turned).reshape(gate.shape()));
        if (tape.needs(weight)) tape.accumulate(weight, permute(times_row(sums, gate), {1, 0}));
    }
    if (bias.defined() && (tape.needs(bias) || tape.needs(gate))) {
        Tensor sum = row_sum(dy);
        tape.accumulate(bias, times_row(sum, gate));
        tape.accumulate(gate, times_row(sum, bias).reshape(gate.shape()));
    }
    if (tape.needs(x))
        tape.accumulate(x, product(dy, permute(times_row(turned, gate), {1, 0}), false).reshape(x.shape()));
}

}  // namespace

// y = residual + gate * act(u), u = x W^T + b
void record_linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const Epilogue& out,
                   const Tensor& y) {
    record({&x, &weight, &bias, &out.gate, &out.residual}, y, [=](Tape& tape, const Tensor& dy) {
        tape.accumulate(out.residual, dy);
        if (one_gate(out)) return gated_linear_grad(tape, x, weight, bias, out.gate, dy);
        Tensor du = dy;
        if (out.gate.defined() || out.activation != Activation::none) {
            Tensor u = linear(x, weight, bias);
            if (out.gate.defined()) {
                Tensor result = activate(u, out.activation);
                tape.accumulate(out.gate, group_sum(dy, result, out.gate.dim(1)));
                du = group_scale(dy, out.gate);
            }
            du = activate_grad(u, du, out.activation);
        }
        if (tape.needs(bias)) tape.accumulate(bias, row_sum(du));
        if (tape.needs(weight)) tape.accumulate(weight, product_over_rows(du, x));
        if (tape.needs(x)) tape.accumulate(x, product(du, weight, false).reshape(x.shape()));
    });
}

void record_layer_norm_modulate(const Tensor& x, const Tensor& shift, const Tensor& scale, float eps,
                                const Tensor& y) {
    record({&x, &shift, &scale}, y, [=](Tape& tape, const Tensor& dy) {
        Tensor dx = empty(x.shape(), x.dtype(), x.device()), normal = empty(x.shape(), x.dtype(), x.device());
        launch_gradient("layer_norm_modulate", &GradientKernels::layer_norm_modulate, x.device(),
                        LayerNormModulateGradArgs{x, scale, dy, eps, dx, normal});
        tape.accumulate(x, dx);
        tape.accumulate(shift, group_sum(dy, {}, shift.dim(1)));
        tape.accumulate(scale, group_sum(dy, normal, scale.dim(1)));
    });
}

namespace {

void rms_norm_grad(Tape& tape, const Tensor& x, const Tensor& weight, const RmsNormOptions& options,
                   const Tensor& dy) {
    Tensor dx = empty(x.shape(), x.dtype(), x.device()), dweight;
    if (tape.needs(weight)) dweight = empty(weight.shape(), x.dtype(), x.device());
    launch_gradient("rms_norm", &GradientKernels::rms_norm, x.device(),
                    RmsNormGradArgs{x, weight, options, dy, dx, dweight});
    tape.accumulate(x, dx);
    tape.accumulate(weight, dweight);
}

}  // namespace

void record_rms_norm(const Tensor& x, const Tensor& weight, const RmsNormOptions& options, const Tensor& y) {
    record({&x, &weight}, y,
           [=](Tape& tape, const Tensor& dy) { rms_norm_grad(tape, x, weight, options, dy); });
}

void record_linear_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                             const LinearAttentionOptions& options, const Tensor& y) {
    if (options.past != nullptr || options.total != nullptr)
        return record_none("linear_attention with a state", {&q, &k, &v});
    record({&q, &k, &v, &options.q_norm, &options.k_norm}, y, [=](Tape& tape, const Tensor& dy) {
        Tensor dq = empty(q.shape(), q.dtype(), q.device()), dk = empty(q.shape(), q.dtype(), q.device());
        Tensor dv = empty(q.shape(), q.dtype(), q.device());
        launch_gradient("linear_attention", &GradientKernels::linear_attention, q.device(),
                        LinearAttentionGradArgs{q, k, v, options, dy, dq, dk, dv});
        RmsNormOptions norm{.eps = options.norm_eps};
        rms_norm_grad(tape, q, options.q_norm, norm, dq);
        rms_norm_grad(tape, k, options.k_norm, norm, dk);
        tape.accumulate(v, dv);
    });
}

void record_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
                      const AttentionOptions& options, const Tensor& y) {
    record({&q, &k, &v}, y, [=](Tape& tape, const Tensor& dy) {
        Tensor dq = empty(q.shape(), q.dtype(), q.device()), dk = empty(k.shape(), q.dtype(), q.device());
        Tensor dv = empty(v.shape(), q.dtype(), q.device());
        launch_gradient("attention", &GradientKernels::attention, q.device(),
                        AttentionGradArgs{q, k, v, mask, options, dy, dq, dk, dv});
        tape.accumulate(q, dq);
        tape.accumulate(k, dk);
        tape.accumulate(v, dv);
    });
}

void record_depthwise_glu(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& y) {
    record({&x, &weight, &bias}, y, [=](Tape& tape, const Tensor& dy) {
        Tensor dx = empty(x.shape(), x.dtype(), x.device()),
               dw = empty(weight.shape(), x.dtype(), x.device());
        Tensor db = empty({x.cols()}, x.dtype(), x.device());
        launch_gradient("depthwise_glu", &GradientKernels::depthwise_glu, x.device(),
                        DepthwiseGluGradArgs{x, weight, bias, dy, dx, dw, db});
        tape.accumulate(x, dx);
        tape.accumulate(weight, dw);
        tape.accumulate(bias, db);
    });
}

// y = residual + gate * u, u = x + conv(x). The gradient of u passes back by the same op with taps reversed and channels
// exchanged. The weight's is a product for every tap; with one gate for all rows they give the gate's too (see one_gate).
void record_temporal_conv(const Tensor& x, const Tensor& weight, const Tensor& past, const Epilogue& out,
                          const Tensor& y) {
    record({&x, &weight, &past, &out.gate, &out.residual}, y, [=](Tape& tape, const Tensor& dy) {
        int64_t batch = x.dim(0), frames = x.dim(1), channels = x.dim(3);
        tape.accumulate(out.residual, dy);
        Shape tokens{batch, frames * x.dim(2), channels};
        bool one = one_gate(out);
        Tensor du = out.gate.defined() ? group_scale(dy.reshape(tokens), out.gate).reshape(x.shape()) : dy;
        if (out.gate.defined() && !one) {
            Tensor u = temporal_conv(x, weight, past, {});
            tape.accumulate(out.gate, group_sum(dy.reshape(tokens), u.reshape(tokens), out.gate.dim(1)));
        } else if (one && tape.needs(out.gate)) {
            tape.accumulate(out.gate, group_sum(dy.reshape(tokens), x.reshape(tokens), 1));
        }
        auto tap = [&](int64_t r) { return slice(weight, 1, r, 1).contiguous(); };
        if (tape.needs(x)) {
            Tensor reversed = permute(concat({tap(2), tap(1), tap(0)}, 1), {2, 1, 0});
            tape.accumulate(x, temporal_conv(du, reversed, {}, {}));
        }
        if (tape.needs(past)) {
            Tensor back = product(slice(du, 1, 0, 1), tap(0).reshape({channels, channels}), false);
            tape.accumulate(past, back.reshape(past.shape()));
        }
        if (!tape.needs(weight) && !(one && tape.needs(out.gate))) return;
        const Tensor& from = one ? dy : du;
        std::vector<Tensor> taps;
        for (int64_t r = 0; r < 3; ++r) {  // du[t] meets x[t + r - 1]; [C,C], the input's channel first
            int64_t n = frames - (r == 1 ? 0 : 1), du_start = r == 0 ? 1 : 0, x_start = r == 2 ? 1 : 0;
            Tensor part = n == 0 ? zeros({channels, channels}, x.dtype(), x.device())
                                 : product_over_rows(slice(x, 1, x_start, n), slice(from, 1, du_start, n));
            if (r == 0 && past.defined()) part = add(part, product_over_rows(past, slice(from, 1, 0, 1)));
            if (one) {
                Tensor turned = permute(tap(r).reshape({channels, channels}), {1, 0});
                tape.accumulate(out.gate, row_sum(part, turned).reshape(out.gate.shape()));
                part = times_row(part, out.gate);
            }
            taps.push_back(permute(part, {1, 0}).reshape({channels, 1, channels}));
        }
        tape.accumulate(weight, concat(taps, 1));
    });
}

void record_activate(const Tensor& x, Activation activation, const Tensor& y) {
    record({&x}, y,
           [=](Tape& tape, const Tensor& dy) { tape.accumulate(x, activate_grad(x, dy, activation)); });
}

void record_add(const Tensor& a, const Tensor& b, const Tensor& y) {
    record({&a, &b}, y, [=](Tape& tape, const Tensor& dy) {
        tape.accumulate(a, dy);
        tape.accumulate(b, dy);
    });
}

void record_affine(const Tensor& x, const Tensor& scale, const Tensor& shift, const Tensor& y) {
    record({&x, &scale, &shift}, y, [=](Tape& tape, const Tensor& dy) {
        tape.accumulate(x, scale.defined() ? affine(dy, scale, {}) : dy);
        if (tape.needs(scale)) tape.accumulate(scale, row_sum(dy, x));
        if (tape.needs(shift)) tape.accumulate(shift, row_sum(dy));
    });
}

void record_combine(const std::vector<Term>& terms, const Tensor& y) {
    Tape* tape = Tape::current();
    if (tape == nullptr) return;
    bool any = false;
    for (const auto& [factor, x] : terms) any = any || tape->needs(x);
    if (!any) return;
    tape->push(y, [=](Tape& t, const Tensor& dy) {
        for (const auto& [factor, x] : terms) {
            if (t.needs(x)) t.accumulate(x, factor == 1 ? dy : combine({{factor, dy}}));
        }
    });
}

void record_concat(const std::vector<Tensor>& parts, int axis, const Tensor& y) {
    Tape* tape = Tape::current();
    if (tape == nullptr) return;
    bool any = false;
    for (const Tensor& part : parts) any = any || tape->needs(part);
    if (!any) return;
    tape->push(y, [=](Tape& t, const Tensor& dy) {
        int64_t start = 0;
        for (const Tensor& part : parts) {
            t.accumulate(part, slice(dy, axis, start, part.dim(axis)));
            start += part.dim(axis);
        }
    });
}

void record_slice(const Tensor& x, int axis, int64_t start, int64_t length, const Tensor& y) {
    record({&x}, y, [=](Tape& tape, const Tensor& dy) {
        auto gap = [&](int64_t n) {
            Shape shape = x.shape();
            shape[axis] = n;
            return zeros(shape, x.dtype(), x.device());
        };
        tape.accumulate(x, concat({gap(start), dy, gap(x.dim(axis) - start - length)}, axis));
    });
}

void record_permute(const Tensor& x, const std::vector<int>& axes, const Tensor& y) {
    record({&x}, y, [=](Tape& tape, const Tensor& dy) {
        std::vector<int> inverse(axes.size());
        for (size_t i = 0; i < axes.size(); ++i) {
            inverse[static_cast<size_t>(axes[i] < 0 ? axes[i] + x.rank() : axes[i])] = static_cast<int>(i);
        }
        tape.accumulate(x, permute(dy, inverse));
    });
}

}  // namespace sana
