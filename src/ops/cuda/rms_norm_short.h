// rms_norm of rows so short that a block has many of them: pixels of video.
#pragma once

#include "ops/norm.h"

namespace sana::cuda {

// False when rows are longer than 512 bf16 or 256 fp32 elements or have no aligned vectors; then nothing was done.
bool rms_norm_short(const RmsNormArgs& args);

}  // namespace sana::cuda
