// Slots for sums over processes in the memory of their devices, which read one another's.
#pragma once

#include <vector>

#include "core/cuda/peer.h"
#include "core/tensor.h"

namespace sana {

class Peers {
public:
    // A slot of this process on its device.
    Peers(Device device, int64_t slot_bytes);
    ~Peers();
    Peers(const Peers&) = delete;
    Peers& operator=(const Peers&) = delete;

    bool made() const { return mine_ != nullptr; }
    const cuda::PeerHandle& handle() const { return handle_; }

    // The slots of all, by their handles in the order of ranks. False: one cannot be reached from here.
    bool open(const std::vector<cuda::PeerHandle>& handles, int rank);

    Tensor slot(int rank, int64_t elements) const;  // fp32

private:
    Device device_;
    int64_t slot_bytes_;
    void* mine_ = nullptr;
    cuda::PeerHandle handle_{};
    std::vector<void*> slots_;
};

}  // namespace sana
