// Device work that is recorded once and launched as a whole.
#pragma once

#include <functional>

#include "core/device.h"

namespace sana {

class DeviceGraph {
public:
    // Records what f gives the device, instead of doing it. f must neither wait for the device nor copy from or to the
    // host's memory: Error then, and nothing has been done. What f reads and writes must stay where it is.
    DeviceGraph(Device device, const std::function<void()>& f);
    ~DeviceGraph();
    DeviceGraph(const DeviceGraph&) = delete;
    DeviceGraph& operator=(const DeviceGraph&) = delete;

    void launch() const;

private:
    Device device_;
    void* graph_ = nullptr;
};

}  // namespace sana
