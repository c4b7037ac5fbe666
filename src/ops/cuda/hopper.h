// What kernels for Hopper's asynchronous units ask of the host: is the device one, and descriptions of tensors for the copy
// engine.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "core/device.h"

namespace sana::cuda {

bool is_hopper(Device device);
int multiprocessors(Device device);

// Whether the copy engine and 16-byte accesses reach every row: stride in 16-bit elements. Null is fine.
inline bool aligned(const void* p, int64_t stride) {
    return p == nullptr || (reinterpret_cast<uintptr_t>(p) % 16 == 0 && stride % 8 == 0);
}

// A map of `rank` axes of a tensor of 16-bit elements, the fastest first; strides in elements, that of the first is 1. Boxes
// land in shared memory swizzled over the span of their first axis, 64 or 128 bytes, or as they are; what lies outside the
// tensor reads as zero.
CUtensorMap tensor_map(const void* data, int rank, const int64_t* sizes, const int64_t* strides,
                       const int* box, bool swizzled = true);

}  // namespace sana::cuda
