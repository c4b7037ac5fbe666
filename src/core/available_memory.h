// Beside memory.h, which every tensor brings along: what few ask.
#pragma once

#include <cstdint>

#include "core/device.h"

namespace sana {

// Bytes that could still be taken on a device: what the system has free and what is kept for reuse, at most what the
// capacity leaves (set_capacity).
int64_t available_memory(Device device);

}  // namespace sana
