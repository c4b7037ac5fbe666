// The CPU's kernel table.
#include "ops/kernels.h"

#include "ops/cpu/cpu.h"
#include "ops/linear_attention_fp8.h"

namespace sana {

const Kernels cpu_kernels{
    .linear = cpu::linear,
    .layer_norm_modulate = cpu::layer_norm_modulate,
    .rms_norm = cpu::rms_norm,
    .rotate_half = cpu::rotate_half,
    .attention = cpu::attention,
    .linear_attention = cpu::linear_attention,
    .conv3d = cpu::conv3d,
    .depthwise_glu = cpu::depthwise_glu,
    .temporal_conv = cpu::temporal_conv,
    .upsample_nearest = cpu::upsample_nearest,
    .depth_to_space = cpu::depth_to_space,
    .activate = cpu::activate,
    .add = cpu::add,
    .gelu_multiply = cpu::gelu_multiply,
    .clamp = cpu::clamp,
    .affine = cpu::affine,
    .combine = cpu::combine,
    .group_mean = cpu::group_mean,
    .embedding = cpu::embedding,
    .timestep_embedding = cpu::timestep_embedding,
    .strided_copy = cpu::strided_copy,
    .quantise = cpu::quantise,
    .dequantise = cpu::dequantise,
    .linear_fp8 = cpu::linear_fp8,
    .temporal_conv_fp8 = cpu::temporal_conv_fp8,
    .layer_norm_modulate_fp8 = cpu::layer_norm_modulate_fp8,
    .depthwise_glu_fp8 = cpu::depthwise_glu_fp8,
    .linear_attention_fp8 = cpu::linear_attention_fp8,
};

}  // namespace sana
