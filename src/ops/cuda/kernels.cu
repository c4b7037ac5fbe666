// The CUDA kernel table. An op that is not listed has no CUDA implementation; asking for it says so by name.
#include "ops/kernels.h"

namespace sana {

const Kernels cuda_kernels{};

}  // namespace sana
