// For CUDA code of ours: the stream that work is queued on, and the check of every CUDA call.
#pragma once

#include <cuda_runtime.h>

#include "core/device.h"

namespace sana::cuda {

// The device's stream; makes the device current for the calling thread. One stream a device: what is queued later sees
// what was queued before, and a block of memory that is freed and taken again is safe to write.
cudaStream_t stream_of(Device device);

// Throws with the expression, CUDA's message and the scope path. With SANA_SYNC=1 in the environment every check waits for
// the device first, so that a fault names the op that made it.
void check_call(cudaError_t error, const char* expression);

// After a kernel launch.
void check_launch(const char* kernel, Device device);

}  // namespace sana::cuda

#define CHECK_CUDA(expression) ::sana::cuda::check_call((expression), #expression)
