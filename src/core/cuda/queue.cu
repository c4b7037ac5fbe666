// Page-locked memory and a stream of copies beside the device's own stream.
#include "core/cuda/device.h"
#include "core/cuda/stream.h"

namespace sana::cuda {

namespace {

struct Queue {
    cudaStream_t stream = nullptr;
    cudaEvent_t event = nullptr;  // of the last time one side waited for the other
};

Queue& queue_of(void* queue) { return *static_cast<Queue*>(queue); }
Device device_of(int index) { return {DeviceType::cuda, index}; }

}  // namespace

void pin(void* data, int64_t bytes) {
    CHECK_CUDA(cudaHostRegister(data, static_cast<size_t>(bytes), cudaHostRegisterPortable));
}

void unpin(void* data) { (void)cudaHostUnregister(data); }

void* make_queue(int device) {
    stream_of(device_of(device));  // makes the device current
    auto* queue = new Queue;
    CHECK_CUDA(cudaStreamCreateWithFlags(&queue->stream, cudaStreamNonBlocking));
    CHECK_CUDA(cudaEventCreateWithFlags(&queue->event, cudaEventDisableTiming));
    return queue;
}

void destroy_queue(int device, void* queue) {
    stream_of(device_of(device));
    // Called by a destructor: an error of earlier work shows at the next call that may throw.
    (void)cudaStreamSynchronize(queue_of(queue).stream);
    (void)cudaEventDestroy(queue_of(queue).event);
    (void)cudaStreamDestroy(queue_of(queue).stream);
    delete &queue_of(queue);
}

void queue_copy(int device, void* queue, const void* from, void* to, int64_t bytes) {
    stream_of(device_of(device));
    CHECK_CUDA(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice,
                               queue_of(queue).stream));
}

void finish_queue(int device, void* queue) {
    stream_of(device_of(device));
    CHECK_CUDA(cudaStreamSynchronize(queue_of(queue).stream));
}

void queue_waits_for_device(int device, void* queue) {
    CHECK_CUDA(cudaEventRecord(queue_of(queue).event, stream_of(device_of(device))));
    CHECK_CUDA(cudaStreamWaitEvent(queue_of(queue).stream, queue_of(queue).event, 0));
}

void device_waits_for_queue(int device, void* queue) {
    cudaStream_t stream = stream_of(device_of(device));
    CHECK_CUDA(cudaEventRecord(queue_of(queue).event, queue_of(queue).stream));
    CHECK_CUDA(cudaStreamWaitEvent(stream, queue_of(queue).event, 0));
}

}  // namespace sana::cuda
