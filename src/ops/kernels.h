// A backend is a value of this struct: one function an op. A backend that lacks an op leaves the pointer null, and the
// op reports which op is missing on which device.
#pragma once

#include "core/tensor.h"

namespace sana {

struct LinearArgs;
struct LayerNormModulateArgs;
struct RmsNormArgs;
struct RotateHalfArgs;
struct AttentionArgs;
struct LinearAttentionArgs;
struct Conv3dArgs;
struct DepthwiseGluArgs;
struct TemporalConvArgs;
struct UpsampleNearestArgs;
struct DepthToSpaceArgs;
struct ActivateArgs;
struct BinaryArgs;
struct ClampArgs;
struct AffineArgs;
struct CombineArgs;
struct GroupMeanArgs;
struct EmbeddingArgs;
struct TimestepEmbeddingArgs;
struct StridedCopyArgs;
struct QuantiseArgs;
struct DequantiseArgs;
struct LinearFp8Args;
struct TemporalConvFp8Args;
struct LayerNormModulateFp8Args;
struct DepthwiseGluFp8Args;
struct LinearAttentionFp8Args;

struct Kernels {
    void (*linear)(const LinearArgs&) = nullptr;
    void (*layer_norm_modulate)(const LayerNormModulateArgs&) = nullptr;
    void (*rms_norm)(const RmsNormArgs&) = nullptr;
    void (*rotate_half)(const RotateHalfArgs&) = nullptr;
    void (*attention)(const AttentionArgs&) = nullptr;
    void (*linear_attention)(const LinearAttentionArgs&) = nullptr;
    void (*conv3d)(const Conv3dArgs&) = nullptr;
    void (*depthwise_glu)(const DepthwiseGluArgs&) = nullptr;
    void (*temporal_conv)(const TemporalConvArgs&) = nullptr;
    void (*upsample_nearest)(const UpsampleNearestArgs&) = nullptr;
    void (*depth_to_space)(const DepthToSpaceArgs&) = nullptr;
    void (*activate)(const ActivateArgs&) = nullptr;
    void (*add)(const BinaryArgs&) = nullptr;
    void (*gelu_multiply)(const BinaryArgs&) = nullptr;
    void (*clamp)(const ClampArgs&) = nullptr;
    void (*affine)(const AffineArgs&) = nullptr;
    void (*combine)(const CombineArgs&) = nullptr;
    void (*group_mean)(const GroupMeanArgs&) = nullptr;
    void (*embedding)(const EmbeddingArgs&) = nullptr;
    void (*timestep_embedding)(const TimestepEmbeddingArgs&) = nullptr;
    void (*strided_copy)(const StridedCopyArgs&) = nullptr;
    void (*quantise)(const QuantiseArgs&) = nullptr;
    void (*dequantise)(const DequantiseArgs&) = nullptr;
    void (*linear_fp8)(const LinearFp8Args&) = nullptr;
    void (*temporal_conv_fp8)(const TemporalConvFp8Args&) = nullptr;
    void (*layer_norm_modulate_fp8)(const LayerNormModulateFp8Args&) = nullptr;
    void (*depthwise_glu_fp8)(const DepthwiseGluFp8Args&) = nullptr;
    void (*linear_attention_fp8)(const LinearAttentionFp8Args&) = nullptr;
};

extern const Kernels cpu_kernels;
extern const Kernels cuda_kernels;  // all null in a build without CUDA

const Kernels& kernels(Device device);

// Runs one kernel of a device, with a named error when the device lacks it.
template <class Args>
void launch(const char* op, void (*Kernels::*kernel)(const Args&), Device device, const Args& args) {
    auto function = kernels(device).*kernel;
    check(function != nullptr, op, " has no implementation on ", device, " in this build");
    function(args);
}

// An operand of an op: the tensor, its name and dimension letters "weight[O,C]", and whether it may be none.
struct Operand {
    const Tensor& tensor;
    const char* dims;
    bool may_be_none = false;
};
constexpr bool kMayBeNone = true;

// bind() for the operands of an op: errors begin with the op's name, say what is missing, and show all operands.
Dims bind_op(const char* op, std::initializer_list<Operand> operands);

// Throws unless an operand that may be of another dtype (a mask, a table) is where the op runs; none is fine.
void check_device(const char* op, const Tensor& operand, const Tensor& x);

// The dtype that all defined tensors of an op share; throws naming the two that differ and the .to() that is missing.
DType same_dtype(const char* op, std::initializer_list<const Tensor*> tensors);

}  // namespace sana
