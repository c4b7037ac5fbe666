// What tensors of other devices than the CPU need from their device.
#pragma once

#include "core/tensor.h"

namespace sana {

// copy() when x or y is not on the CPU; equal shapes, any strides between rows, any dtypes.
void copy_across(const Tensor& x, Tensor& y);

// Writes zeros to a dense tensor of a device that is not the CPU.
void fill_zero(Tensor& x);

}  // namespace sana
