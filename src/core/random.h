// Random numbers that do not depend on threads or devices.
#pragma once

#include "core/philox.h"
#include "core/tensor.h"

namespace sana {

// Standard normal noise, fp32. Element i depends on (seed, stream, i) alone: counter {i/4 low, i/4 high, stream low,
// stream high}, key = seed; the four numbers u0..u3 become, with v = (u + 0.5) * 2^-32, two Box-Muller pairs
// sqrt(-2 ln v0) {cos, sin}(2 pi v1) and the same of v2, v3, evaluated in fp64 and rounded once. The same bits on every
// device.
Tensor randn_philox(const Shape& shape, uint64_t seed, uint64_t stream = 0, Device device = kCpu);

// mean + std * that noise, in fp64 and rounded once more.
Tensor normal_philox(const Shape& shape, const NormalSource& source, Device device = kCpu);

// What torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)) gives in fp32 (to rounding of its
// vectorised logarithm and cosine): MT19937, blocks of 16, the last block redrawn when 16 does not divide the size.
Tensor randn_torch(const Shape& shape, uint64_t seed);

}  // namespace sana
