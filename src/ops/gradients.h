// Derivatives of the ops: the kernels that a backend for training fills, and what each op records on the tape.
// Derivatives that are compositions of other ops (linear, temporal_conv) have no kernel of their own.
#pragma once

#include "ops/attention.h"
#include "ops/conv.h"
#include "ops/layout.h"
#include "ops/linear_attention.h"
#include "ops/norm.h"
#include "ops/pointwise.h"
#include "ops/tape.h"

namespace sana {

struct GroupSumArgs {
    const Tensor &a, &b;
    Tensor& y;
};
struct GroupScaleArgs {
    const Tensor &x, &scale;
    Tensor& y;
};
// dx = activation'(x) * dy
struct ActivateGradArgs {
    const Tensor &x, &dy;
    Activation activation;
    Tensor& dx;
};
// normal: the normalised row, whose product with dy sums to the gradient of scale.
struct LayerNormModulateGradArgs {
    const Tensor &x, &scale, &dy;
    float eps;
    Tensor &dx, &normal;
};
// dweight_rows: a row's contribution to the gradient of the weight.
struct RmsNormGradArgs {
    const Tensor &x, &weight;
    const RmsNormOptions& options;
    const Tensor& dy;
    Tensor &dx, &dweight_rows;
};
// dq_normal, dk_normal: gradients of the normalised q and k before the ReLU.
struct LinearAttentionGradArgs {
    const Tensor &q, &k, &v;
    const LinearAttentionOptions& options;
    const Tensor& dy;
    Tensor &dq_normal, &dk_normal, &dv;
};
struct AttentionGradArgs {
    const Tensor &q, &k, &v, &mask;
    const AttentionOptions& options;
    const Tensor& dy;
    Tensor &dq, &dk, &dv;
};
struct DepthwiseGluGradArgs {
    const Tensor &x, &weight, &bias, &dy;
    Tensor &dx, &dweight, &dbias;
};

struct GradientKernels {
    void (*group_sum)(const GroupSumArgs&) = nullptr;
    void (*group_scale)(const GroupScaleArgs&) = nullptr;
    void (*activate)(const ActivateGradArgs&) = nullptr;
    void (*layer_norm_modulate)(const LayerNormModulateGradArgs&) = nullptr;
    void (*rms_norm)(const RmsNormGradArgs&) = nullptr;
    void (*linear_attention)(const LinearAttentionGradArgs&) = nullptr;
    void (*attention)(const AttentionGradArgs&) = nullptr;
    void (*depthwise_glu)(const DepthwiseGluGradArgs&) = nullptr;
};

extern const GradientKernels cpu_gradient_kernels;

template <class Args>
void launch_gradient(const char* op, void (*GradientKernels::*kernel)(const Args&), Device device,
                     const Args& args) {
    check(device == kCpu, "the derivative of ", op, " has no implementation on ", device, " in this build");
    (cpu_gradient_kernels.*kernel)(args);
}

// Called by the ops at their end; nothing happens without a tape, or when no input needs a gradient.
void record_linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const Epilogue& out,
                   const Tensor& y);
void record_layer_norm_modulate(const Tensor& x, const Tensor& shift, const Tensor& scale, float eps,
                                const Tensor& y);
void record_rms_norm(const Tensor& x, const Tensor& weight, const RmsNormOptions& options, const Tensor& y);
void record_linear_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                             const LinearAttentionOptions& options, const Tensor& y);
void record_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
                      const AttentionOptions& options, const Tensor& y);
void record_depthwise_glu(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& y);
void record_temporal_conv(const Tensor& x, const Tensor& weight, const Tensor& past, const Epilogue& out,
                          const Tensor& y);
void record_activate(const Tensor& x, Activation activation, const Tensor& y);
void record_add(const Tensor& a, const Tensor& b, const Tensor& y);
void record_affine(const Tensor& x, const Tensor& scale, const Tensor& shift, const Tensor& y);
void record_combine(const std::vector<Term>& terms, const Tensor& y);
void record_concat(const std::vector<Tensor>& parts, int axis, const Tensor& y);
void record_slice(const Tensor& x, int axis, int64_t start, int64_t length, const Tensor& y);
void record_permute(const Tensor& x, const std::vector<int>& axes, const Tensor& y);
// For an op without a derivative: an error when a gradient would have to pass.
void record_none(const char* op, std::initializer_list<const Tensor*> inputs);

}  // namespace sana
