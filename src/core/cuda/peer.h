// Memory of a device that other processes of the machine, on other devices, read (CUDA IPC, CUDA C programming guide,
// "Interprocess Communication").
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace sana::cuda {

using PeerHandle = std::array<std::byte, 64>;

// A block outside the allocator's cache and the name under which another process opens it. nullptr: no memory, or the
// driver does not share it (containers without IPC).
void* allocate_peer(int device, int64_t bytes, PeerHandle& handle);
void release_peer(int device, void* block);

// Another process's block as this device reaches it. nullptr: the devices cannot read each other's memory.
void* open_peer(int device, const PeerHandle& handle);
void close_peer(int device, void* block);

}  // namespace sana::cuda
