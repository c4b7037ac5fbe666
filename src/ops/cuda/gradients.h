// The CUDA backend's derivative kernels: fp32, bf16 and fp16 storage, fp32 sums in a fixed order.
#pragma once

#include "ops/gradients.h"

namespace sana::cuda {

void matrix_product(const ProductArgs&);
void group_sum(const GroupSumArgs&);
void group_scale(const GroupScaleArgs&);
void scale_all(const ScaleAllArgs&);
void activate_grad(const ActivateGradArgs&);
void layer_norm_modulate_grad(const LayerNormModulateGradArgs&);
void rms_norm_grad(const RmsNormGradArgs&);
void linear_attention_grad(const LinearAttentionGradArgs&);
void attention_grad(const AttentionGradArgs&);
void depthwise_glu_grad(const DepthwiseGluGradArgs&);
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

// attention with tensor cores (attention_grad_mma.cu); false, and nothing done, when it does not take the problem.
bool attention_grad_by_mma(const AttentionGradArgs&);
// linear_attention a block a head (linear_attention_grad_heads.cu); false, and nothing done, when it does not take the problem.
bool linear_attention_grad_by_heads(const LinearAttentionGradArgs&);
// conv3d_weight with tensor cores (conv_weight_mma.cu); false, and nothing done, when it does not take the problem.
bool conv3d_weight_by_mma(const Conv3dWeightGradArgs&);
// The same for kernels of 3 x 3 in space, of what conv3d_weight_by_mma takes (conv_weight_strips.cu).
void conv3d_weight_by_strips(const Conv3dWeightGradArgs&);

}  // namespace sana::cuda
