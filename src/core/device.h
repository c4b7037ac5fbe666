// Where a tensor lives.
#pragma once

#include <optional>
#include <string>
#include <string_view>

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

// "cpu", "cuda" or "cuda:1"; none for other text. Says nothing about whether the device exists.
std::optional<Device> parse_device(std::string_view text);

inline void print(std::string& out, Device device) {
    out += device.type == DeviceType::cpu ? "cpu" : "cuda:" + std::to_string(device.index);
}

}  // namespace sana
