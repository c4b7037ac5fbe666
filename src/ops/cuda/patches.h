// What the taps of a convolution see, written out as rows.
#pragma once

#include "ops/conv.h"

namespace sana::cuda {

// patches [rows, KT*KH*KW*C]: of the results [first_row, first_row + rows), in the dtype of x. Of args, y gives the
// shape alone.
void write_patches(const Conv3dArgs& args, Tensor& patches, int64_t first_row, int64_t rows);

// x [...,C] with zeros as further channels, up to a multiple of `unit`, which 8 divides: rows that start at whole vectors of
// 16-bit elements.
Tensor pad_channels(const Tensor& x, int64_t unit);

}  // namespace sana::cuda
