#include "core/graph.h"

#include "core/check.h"
#include "core/cuda/device.h"

namespace sana {

DeviceGraph::DeviceGraph(Device device, const std::function<void()>& f) : device_(device) {
    check(device.type == DeviceType::cuda, "work of the ", device, " cannot be recorded");
    cuda::begin_recording(device.index);
    try {
        f();
    } catch (...) {
        cuda::drop_recording(device.index);
        throw;
    }
    graph_ = cuda::end_recording(device.index);
}

DeviceGraph::~DeviceGraph() { cuda::destroy_graph(device_.index, graph_); }

void DeviceGraph::launch() const { cuda::launch_graph(device_.index, graph_); }

}  // namespace sana
