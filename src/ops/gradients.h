// Derivatives of the ops: the kernels that a backend for training fills, and what each op records on the tape.
// Derivatives that are compositions of other ops (temporal_conv, rotate_half) have no kernel of their own.
#pragma once

#include "ops/attention.h"
#include "ops/conv.h"
#include "ops/depth_to_space.h"
#include "ops/embed.h"
#include "ops/layout.h"
#include "ops/linear_attention.h"
#include "ops/loss.h"
#include "ops/norm.h"
#include "ops/optim.h"
#include "ops/pointwise.h"
#include "ops/rope.h"
#include "ops/tape.h"

namespace sana {

// y = op(a) op(b), op(x) = x or its transpose; rows of a and b may be strided.   y [M,N] dense
struct ProductArgs {
    const Tensor &a, &b;
    bool a_transposed, b_transposed;
    Tensor& y;
};
struct GroupSumArgs {
    const Tensor &a, &b;
    Tensor& y;
};
struct GroupScaleArgs {
    const Tensor &x, &scale;
    Tensor& y;
};
// x *= factor[0], a scalar [1] in fp32 (fp64 for fp64) that stays on the device.
struct ScaleAllArgs {
    const Tensor& factor;
    Tensor& x;
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
// dweight [C]: none when nobody wants it.
struct RmsNormGradArgs {
    const Tensor &x, &weight;
    const RmsNormOptions& options;
    const Tensor& dy;
    Tensor &dx, &dweight;
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

// dweight[o,u,v,s,c] = sum over results i of dy[i,o] p[i * stride + (u,v,s),c], p = the padded past ++ x.
struct Conv3dWeightGradArgs {
    const Tensor &x, &dy;
    const Conv3dOptions& options;
    Tensor& dweight;
};
// The gradient of the padded past ++ x brought back: every element gets the sum over the places it was copied to.
struct UnpadArgs {
    const Tensor& dpadded;
    const Conv3dOptions& options;
    Tensor &dpast, &dx;  // dpast none without a past
};
// dx[b,t,h,w,c] = factor * (sum of dy over the four pixels of x's pixel); also the 2x2 mean, factor 1/4.
struct SumPixelsArgs {
    const Tensor& dy;
    float factor;
    Tensor& dx;
};
// dx = dy where low <= x <= high, else 0
struct ClampGradArgs {
    const Tensor &x, &dy;
    float low, high;
    Tensor& dx;
};
// dx[...,j] = dy[...,j / group] / group
struct GroupMeanGradArgs {
    const Tensor& dy;
    int64_t group;
    Tensor& dx;
};
// dtable[v,:] = scale * sum of dy[i,:] over the tokens i with id v, rows of other ids 0; scale rounded as the op does.
struct EmbeddingGradArgs {
    const Tensor &ids, &dy;
    float scale;
    Tensor& dtable;
};

struct GradientKernels {
    void (*product)(const ProductArgs&) = nullptr;
    void (*group_sum)(const GroupSumArgs&) = nullptr;
    void (*group_scale)(const GroupScaleArgs&) = nullptr;
    void (*scale_all)(const ScaleAllArgs&) = nullptr;
    void (*activate)(const ActivateGradArgs&) = nullptr;
    void (*layer_norm_modulate)(const LayerNormModulateGradArgs&) = nullptr;
    void (*rms_norm)(const RmsNormGradArgs&) = nullptr;
    void (*linear_attention)(const LinearAttentionGradArgs&) = nullptr;
    void (*attention)(const AttentionGradArgs&) = nullptr;
    void (*depthwise_glu)(const DepthwiseGluGradArgs&) = nullptr;
    void (*conv3d_weight)(const Conv3dWeightGradArgs&) = nullptr;
    void (*unpad)(const UnpadArgs&) = nullptr;
    void (*sum_pixels)(const SumPixelsArgs&) = nullptr;
    void (*clamp)(const ClampGradArgs&) = nullptr;
    void (*group_mean)(const GroupMeanGradArgs&) = nullptr;
    void (*embedding)(const EmbeddingGradArgs&) = nullptr;
    // Losses and steps: what only training computes.
    void (*difference_loss)(const DifferenceLossArgs&) = nullptr;
    void (*kl_loss)(const KlLossArgs&) = nullptr;
    void (*gaussian_sample)(const GaussianSampleArgs&) = nullptr;
    void (*gaussian_sample_logvar)(const GaussianSampleGradArgs&) = nullptr;
    void (*square_sum)(const SquareSumArgs&) = nullptr;
    void (*adamw)(const AdamWArgs&) = nullptr;
    void (*came)(const CameArgs&) = nullptr;
    void (*orthogonalise)(const OrthogonaliseArgs&) = nullptr;
    void (*muon_moment)(const MuonMomentArgs&) = nullptr;
    void (*muon_step)(const MuonStepArgs&) = nullptr;
    void (*average)(const AverageArgs&) = nullptr;
};

extern const GradientKernels cpu_gradient_kernels;
extern const GradientKernels cuda_gradient_kernels;  // all null in a build without CUDA

template <class Args>
void launch_gradient(const char* op, void (*GradientKernels::*kernel)(const Args&), Device device,
                     const Args& args) {
    const GradientKernels& table = device == kCpu ? cpu_gradient_kernels : cuda_gradient_kernels;
    auto function = table.*kernel;
    check(function != nullptr, "the derivative of ", op, " has no implementation on ", device,
          " in this build");
    function(args);
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
void record_conv3d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv3dOptions& options,
                   const Tensor& y);
void record_upsample_nearest(const Tensor& x, const Tensor& y);
void record_depth_to_space(const Tensor& x, const Tensor& shortcut, const DepthToSpaceOptions& options,
                           const Tensor& y);
void record_mean_pixels(const Tensor& x, const Tensor& y);
void record_rotate_half(const Tensor& x, const Rope& rope, int64_t heads, const Tensor& y);
void record_gelu_multiply(const Tensor& gate, const Tensor& up, const Tensor& y);
void record_clamp(const Tensor& x, float low, float high, const Tensor& y);
void record_group_mean(const Tensor& x, int64_t group, const Tensor& y);
void record_embedding(const Tensor& ids, const Tensor& table, float scale, const Tensor& y);
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
