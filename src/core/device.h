// Where a tensor lives.
#pragma once

#include <string>

namespace sana {

enum class DeviceType { cpu, cuda };

struct Device {
    DeviceType type = DeviceType::cpu;
    int index = 0;

    bool operator==(const Device&) const = default;
};

inline constexpr Device kCpu{};

// Waits until everything that was queued on the device is done; nothing to do on the CPU.
void synchronise(Device device);

inline void print(std::string& out, Device device) {
    out += device.type == DeviceType::cpu ? "cpu" : "cuda:" + std::to_string(device.index);
}

}  // namespace sana
