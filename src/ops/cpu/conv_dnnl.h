// conv3d through oneDNN.
#pragma once

#include <array>

#include "ops/conv.h"

namespace sana::cpu {

// Whether conv3d_dnnl takes this dtype in this build.
bool conv3d_uses_dnnl(DType dtype);

// args.y from x (which stands for args.x with some of its padding already written out) and the zero padding that is left.
void conv3d_dnnl(const Conv3dArgs& args, const Tensor& x, const std::array<int64_t, 3>& pad_before,
                 const std::array<int64_t, 3>& pad_after);

}  // namespace sana::cpu
