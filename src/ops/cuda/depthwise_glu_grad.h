// The fast path of depthwise_glu's derivative, for the plain one in depthwise_glu_grad.cu.
#pragma once

#include "ops/gradients.h"

namespace sana::cuda {

// False, and nothing done, where dtype, alignment or size do not suit the walk (device/depthwise_walk.cuh).
bool depthwise_glu_grad_walk(const DepthwiseGluGradArgs& args);

}  // namespace sana::cuda
