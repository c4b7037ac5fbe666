// The kernel tables of a build without CUDA.
#include "ops/gradients.h"
#include "ops/kernels.h"

namespace sana {

const Kernels cuda_kernels{};
const GradientKernels cuda_gradient_kernels{};

}  // namespace sana
