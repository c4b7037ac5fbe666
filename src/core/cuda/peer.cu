#include "core/cuda/peer.h"

#include <cstring>

#include "core/cuda/device.h"
#include "core/cuda/stream.h"

namespace sana::cuda {

namespace {

void make_current(int device) { stream_of({DeviceType::cuda, device}); }

// What could not be done is told by the result; the error must not show at the next call.
bool done(cudaError_t error) {
    if (error != cudaSuccess) (void)cudaGetLastError();
    return error == cudaSuccess;
}

}  // namespace

static_assert(sizeof(PeerHandle) == sizeof(cudaIpcMemHandle_t));

void* allocate_peer(int device, int64_t bytes, PeerHandle& handle) {
    make_current(device);
    void* block = nullptr;
    if (!done(cudaMalloc(&block, static_cast<size_t>(bytes)))) return nullptr;
    cudaIpcMemHandle_t name;
    if (!done(cudaIpcGetMemHandle(&name, block))) {
        release_peer(device, block);
        return nullptr;
    }
    std::memcpy(handle.data(), &name, sizeof name);
    return block;
}

void release_peer(int device, void* block) {
    make_current(device);
    (void)cudaFree(block);
}

void* open_peer(int device, const PeerHandle& handle) {
    make_current(device);
    cudaIpcMemHandle_t name;
    std::memcpy(&name, handle.data(), sizeof name);
    void* block = nullptr;
    return done(cudaIpcOpenMemHandle(&block, name, cudaIpcMemLazyEnablePeerAccess)) ? block : nullptr;
}

void close_peer(int device, void* block) {
    make_current(device);
    (void)cudaIpcCloseMemHandle(block);
}

}  // namespace sana::cuda
