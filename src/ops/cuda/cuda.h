// The CUDA backend: fp32, bf16 and fp16 storage, fp32 arithmetic. fp64 lives on the CPU.
#pragma once

#include "ops/attention.h"
#include "ops/conv.h"
#include "ops/depth_to_space.h"
#include "ops/embed.h"
#include "ops/glu_fp8.h"
#include "ops/layout.h"
#include "ops/linear.h"
#include "ops/linear_attention.h"
#include "ops/norm.h"
#include "ops/pointwise.h"
#include "ops/rope.h"

namespace sana::cuda {

void linear(const LinearArgs&);
void layer_norm_modulate(const LayerNormModulateArgs&);
void rms_norm(const RmsNormArgs&);
void rotate_half(const RotateHalfArgs&);
void attention(const AttentionArgs&);
void linear_attention(const LinearAttentionArgs&);
void conv3d(const Conv3dArgs&);
void depthwise_glu(const DepthwiseGluArgs&);
void temporal_conv(const TemporalConvArgs&);
void upsample_nearest(const UpsampleNearestArgs&);
void depth_to_space(const DepthToSpaceArgs&);
void activate(const ActivateArgs&);
void add(const BinaryArgs&);
void gelu_multiply(const BinaryArgs&);
void clamp(const ClampArgs&);
void affine(const AffineArgs&);
void combine(const CombineArgs&);
void group_mean(const GroupMeanArgs&);
void embedding(const EmbeddingArgs&);
void timestep_embedding(const TimestepEmbeddingArgs&);
void strided_copy(const StridedCopyArgs&);
void quantise(const QuantiseArgs&);
void dequantise(const DequantiseArgs&);
void linear_fp8(const LinearFp8Args&);
void temporal_conv_fp8(const TemporalConvFp8Args&);
void layer_norm_modulate_fp8(const LayerNormModulateFp8Args&);
void depthwise_glu_fp8(const DepthwiseGluFp8Args&);

// temporal_conv with another x in its products than the one that is added.
void temporal_conv_of(const Tensor& product_x, const TemporalConvArgs&);

}  // namespace sana::cuda
