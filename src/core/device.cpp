#include "core/device.h"

#include <charconv>

#include "core/cuda/device.h"

namespace sana {

std::optional<Device> parse_device(std::string_view text) {
    if (text == "cpu") return kCpu;
    if (text == "cuda") return Device{DeviceType::cuda, 0};
    constexpr std::string_view prefix = "cuda:";
    if (!text.starts_with(prefix)) return std::nullopt;
    text.remove_prefix(prefix.size());
    int index = -1;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
    if (error != std::errc() || end != text.data() + text.size() || index < 0) return std::nullopt;
    return Device{DeviceType::cuda, index};
}

void synchronise(Device device) {
    if (device.type == DeviceType::cuda) cuda::synchronise(device.index);
}

}  // namespace sana
