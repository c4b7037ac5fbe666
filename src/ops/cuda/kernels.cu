// The CUDA kernel table.
#include "ops/kernels.h"

#include "ops/cuda/cuda.h"
#include "ops/linear_attention_fp8.h"

namespace sana {

const Kernels cuda_kernels{
    .linear = cuda::linear,
    .layer_norm_modulate = cuda::layer_norm_modulate,
    .rms_norm = cuda::rms_norm,
    .rotate_half = cuda::rotate_half,
    .attention = cuda::attention,
    .linear_attention = cuda::linear_attention,
    .conv3d = cuda::conv3d,
    .depthwise_glu = cuda::depthwise_glu,
    .temporal_conv = cuda::temporal_conv,
    .upsample_nearest = cuda::upsample_nearest,
    .depth_to_space = cuda::depth_to_space,
    .activate = cuda::activate,
    .add = cuda::add,
    .gelu_multiply = cuda::gelu_multiply,
    .clamp = cuda::clamp,
    .affine = cuda::affine,
    .combine = cuda::combine,
    .group_mean = cuda::group_mean,
    .embedding = cuda::embedding,
    .timestep_embedding = cuda::timestep_embedding,
    .strided_copy = cuda::strided_copy,
    .quantise = cuda::quantise,
    .dequantise = cuda::dequantise,
    .linear_fp8 = cuda::linear_fp8,
    .temporal_conv_fp8 = cuda::temporal_conv_fp8,
    .layer_norm_modulate_fp8 = cuda::layer_norm_modulate_fp8,
    .depthwise_glu_fp8 = cuda::depthwise_glu_fp8,
    .linear_attention_fp8 = cuda::linear_attention_fp8,
};

}  // namespace sana
