// Where a generation computes, and in which dtypes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/device.h"
#include "core/dtype.h"
#include "nn/fp8.h"

namespace sana {

struct Placement {
    Device device = kCpu;
    DType transformer = DType::F32, vae = DType::F32;
    Fp8Rule fp8 = {};                        // of the transformer: layers held as E4M3
    std::optional<DType> text = DType::F32;  // of the text encoder; none: the dtype it is stored in
    int64_t budget = 0;  // bytes of device memory that a run may take (pipeline/memory_plan.h); 0: no limit
    bool explain_plan = false;  // tell the memory plan even when nothing has to be cut to fit
};

// Whether a text names a device or is "auto"; says nothing about whether the device exists.
bool is_device_name(const std::string& text);

// What to compute on: the named device, or for "auto" the first GPU where there is one, else the CPU. InputError when the
// name is unknown or the device cannot be used here, with the reason.
Device find_device(const std::string& text);

// Gives back what the part before has freed, on the device and in the host's memory: the next part needs blocks of other
// sizes.
void make_room(Device device);

}  // namespace sana
