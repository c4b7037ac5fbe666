// Copies from the host that go on while the device computes.
#pragma once

#include <memory>

#include "core/tensor.h"

namespace sana {

// Page-locked memory of the host, from which a device copies at full speed and without waiting; ordinary memory when
// the device is the CPU. Not cached: given back to the system with the last reference.
StoragePtr allocate_pinned(int64_t bytes, Device device);

// A queue beside the device's own. The two meet only where one is told to wait for the other.
class CopyQueue {
public:
    explicit CopyQueue(Device device);
    ~CopyQueue();  // waits for its copies
    CopyQueue(const CopyQueue&) = delete;
    CopyQueue& operator=(const CopyQueue&) = delete;

    // bytes from pinned memory to the device's; both stay alive until the device has waited for this queue.
    void copy(const std::byte* from, std::byte* to, int64_t bytes);
    // What is copied from now on comes after everything that the device was given so far.
    void wait_for_device();
    // What the device is given from now on comes after every copy so far.
    void device_waits();
    // Returns when every copy so far has been made.
    void finish();

private:
    Device device_;
    void* queue_ = nullptr;
};

// bytes of ordinary host memory to a device, by way of page-locked memory that all threads fill: near the speed of the
// bus also for files that are mapped and not yet read. Has read its source when it returns.
void upload(const std::byte* from, std::byte* to, int64_t bytes, Device device);

}  // namespace sana
