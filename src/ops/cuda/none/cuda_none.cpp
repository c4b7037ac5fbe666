// The kernel table of a build without CUDA.
#include "ops/kernels.h"

namespace sana {

const Kernels cuda_kernels{};

}  // namespace sana
