// The derivative of rms_norm for wide rows, for norm_grad.cu.
#pragma once

#include "ops/gradients.h"

namespace sana::cuda {

// False, and nothing done, where the rows' width or alignment does not suit it.
bool rms_norm_wide_grad(const RmsNormGradArgs& args);

}  // namespace sana::cuda
