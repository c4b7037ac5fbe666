#include "pipeline/placement.h"

#include "core/cuda/device.h"
#include "core/memory.h"

namespace sana {

bool is_device_name(const std::string& text) { return text == "auto" || parse_device(text).has_value(); }

Device find_device(const std::string& text) {
    check_input(is_device_name(text), "'", text, "' is not a device; auto, cpu, cuda or cuda:N is expected");
    if (text == "auto" && cuda::device_count() == 0) return kCpu;
    Device device = parse_device(text == "auto" ? "cuda" : text).value();
    if (device.type == DeviceType::cuda) cuda::check_usable(device);
    return device;
}

void make_room(Device device) {
    release_cached(device);
    if (device != kCpu) release_cached(kCpu);
}

}  // namespace sana
