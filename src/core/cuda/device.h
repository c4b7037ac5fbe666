// The CUDA runtime as the rest of the program sees it, without its headers. In a build without CUDA device_count() is 0 and
// everything else fails with a message that says so.
#pragma once

#include <cstdint>
#include <string>

#include "core/device.h"
#include "core/dtype.h"
#include "core/philox.h"

namespace sana::cuda {

struct DeviceInfo {
    std::string name;
    int64_t memory = 0, free = 0;  // bytes
    int major = 0, minor = 0;      // compute capability
    int multiprocessors = 0;
};

// Devices that can be used; 0 without a driver or without CUDA in this build.
int device_count();
DeviceInfo device_info(int device);

// Throws InputError with the reason when the device cannot be used.
void check_usable(Device device);

void* allocate(int device, int64_t bytes);  // nullptr when there is no memory
void release(int device, void* block);

// Everything below is queued on the device's stream (core/cuda/stream.h), in order; copies to and from the host's memory
// are finished, or have read their source, when the call returns.
void fill(int device, void* to, int value, int64_t bytes);

// Rows of row_bytes bytes, pitch bytes apart; at least one side is a CUDA device.
struct Rows {
    void* data;
    int64_t pitch;
    Device device;
};
void copy_rows(const Rows& from, const Rows& to, int64_t row_bytes, int64_t rows);

// Rows of floating elements from one dtype to another, on one device; one rounding to nearest.
void convert_rows(const Rows& from, DType from_dtype, const Rows& to, DType to_dtype, int64_t cols,
                  int64_t rows);

// n normal deviates of a source (core/random.h).
void fill_normal(int device, float* to, int64_t n, const NormalSource& source);

void synchronise(int device);

// Page-locks memory of the host for copies (core/copy_queue.h).
void pin(void* data, int64_t bytes);
void unpin(void* data);

// A stream of copies beside the device's own (class CopyQueue).
void* make_queue(int device);
void destroy_queue(int device, void* queue);
void queue_copy(int device, void* queue, const void* from, void* to, int64_t bytes);
void finish_queue(int device, void* queue);
void queue_waits_for_device(int device, void* queue);
void device_waits_for_queue(int device, void* queue);

// What is given to the device's stream between begin and end is recorded instead of done (class DeviceGraph).
void begin_recording(int device);
void drop_recording(int device);
void* end_recording(int device);
void launch_graph(int device, void* graph);
void destroy_graph(int device, void* graph);

}  // namespace sana::cuda
