// Moving data without arithmetic.
#pragma once

#include <vector>

#include "core/tensor.h"

namespace sana {

Tensor concat(const std::vector<Tensor>& parts, int axis);
Tensor slice(const Tensor& x, int axis, int64_t start, int64_t length);  // a view where the layout allows one
Tensor permute(const Tensor& x, const std::vector<int>& axes);           // y.dim(i) = x.dim(axes[i])

// Checkpoint and reference files hold video as [B,C,T,H,W]; in memory it is [B,T,H,W,C].
Tensor channels_last(const Tensor& x);
Tensor channels_first(const Tensor& x);

// Copies elements of any dtype between two strided layouts of the same shape; strides in elements.
struct StridedCopyArgs {
    Shape shape;
    const void* from;
    Shape from_strides;
    void* to;
    Shape to_strides;
    int64_t element_bytes;
    Device device;
};

}  // namespace sana
