// Recording of the device's stream (class DeviceGraph).
#include "core/cuda/device.h"
#include "core/cuda/stream.h"

namespace sana::cuda {

namespace {

cudaStream_t stream(int device) { return stream_of({DeviceType::cuda, device}); }

}  // namespace

void begin_recording(int device) {
    // Relaxed: memory may be asked from the system meanwhile.
    CHECK_CUDA(cudaStreamBeginCapture(stream(device), cudaStreamCaptureModeRelaxed));
}

void drop_recording(int device) {
    cudaGraph_t graph = nullptr;
    (void)cudaStreamEndCapture(stream(device), &graph);  // the recording may be invalid already
    if (graph != nullptr) (void)cudaGraphDestroy(graph);
    (void)cudaGetLastError();
}

void* end_recording(int device) {
    cudaGraph_t graph = nullptr;
    CHECK_CUDA(cudaStreamEndCapture(stream(device), &graph));
    cudaGraphExec_t executable = nullptr;
    cudaError_t error = cudaGraphInstantiate(&executable, graph, 0);
    (void)cudaGraphDestroy(graph);
    check_call(error, "cudaGraphInstantiate");
    return executable;
}

void launch_graph(int device, void* graph) {
    CHECK_CUDA(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream(device)));
}

void destroy_graph(int device, void* graph) {
    stream(device);  // makes the device current
    (void)cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
}

}  // namespace sana::cuda
