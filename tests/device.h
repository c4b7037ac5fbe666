// The device that tests run on: SANA_DEVICE (cpu, cuda, cuda:1), cpu when it is not set.
#pragma once

#include <cstdlib>

#include "core/check.h"
#include "core/tensor.h"

namespace sana {

inline Device test_device() {
    const char* text = std::getenv("SANA_DEVICE");
    if (text == nullptr) return kCpu;
    std::optional<Device> device = parse_device(text);
    check_input(device.has_value(), "SANA_DEVICE is ", text, "; cpu, cuda or cuda:N is expected");
    return *device;
}

inline Tensor on_test_device(const Tensor& x) { return x.to(test_device()); }

}  // namespace sana
