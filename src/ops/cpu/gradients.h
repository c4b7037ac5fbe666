// The CPU's derivative kernels.
#pragma once

#include "ops/gradients.h"

namespace sana::cpu {

// Derivatives are computed in fp32 (fp64 for the oracle); other dtypes are an error that says so.
template <class F>
void dispatch_fp32_fp64(const char* op, DType dtype, F&& f) {
    check(dtype == DType::F32 || dtype == DType::F64, "the derivative of ", op,
          " is computed in fp32 or fp64, not in ", dtype);
    if (dtype == DType::F32) {
        f.template operator()<float>();
    } else {
        f.template operator()<double>();
    }
}

void group_sum(const GroupSumArgs&);
void group_scale(const GroupScaleArgs&);
void scale_all(const ScaleAllArgs&);
void activate_grad(const ActivateGradArgs&);
void layer_norm_modulate_grad(const LayerNormModulateGradArgs&);
void rms_norm_grad(const RmsNormGradArgs&);
void linear_attention_grad(const LinearAttentionGradArgs&);
void attention_grad(const AttentionGradArgs&);
void depthwise_glu_grad(const DepthwiseGluGradArgs&);
void product(const ProductArgs&);
void conv3d_weight_grad(const Conv3dWeightGradArgs&);
void unpad(const UnpadArgs&);
void sum_pixels(const SumPixelsArgs&);
void clamp_grad(const ClampGradArgs&);
void group_mean_grad(const GroupMeanGradArgs&);
void embedding_grad(const EmbeddingGradArgs&);
void difference_loss(const DifferenceLossArgs&);
void kl_loss(const KlLossArgs&);
void gaussian_sample(const GaussianSampleArgs&);
void gaussian_sample_grad(const GaussianSampleGradArgs&);
void square_sum(const SquareSumArgs&);
void adamw(const AdamWArgs&);
void came(const CameArgs&);
void orthogonalise(const OrthogonaliseArgs&);
void muon_moment(const MuonMomentArgs&);
void muon_step(const MuonStepArgs&);
void average_step(const AverageArgs&);

}  // namespace sana::cpu
