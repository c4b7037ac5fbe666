#include "train/peers.h"

namespace sana {

Peers::Peers(Device device, int64_t slot_bytes)
    : device_(device),
      slot_bytes_(slot_bytes),
      mine_(cuda::allocate_peer(device.index, slot_bytes, handle_)) {}

Peers::~Peers() {
    for (size_t r = 0; r < slots_.size(); ++r)
        if (slots_[r] != nullptr && slots_[r] != mine_) cuda::close_peer(device_.index, slots_[r]);
    if (mine_ != nullptr) cuda::release_peer(device_.index, mine_);
}

bool Peers::open(const std::vector<cuda::PeerHandle>& handles, int rank) {
    for (size_t r = 0; r < handles.size(); ++r) {
        bool own = static_cast<int>(r) == rank;
        slots_.push_back(own ? mine_ : cuda::open_peer(device_.index, handles[r]));
        if (slots_.back() == nullptr) return false;
    }
    return true;
}

Tensor Peers::slot(int rank, int64_t elements) const {
    int64_t bytes = elements * size_of(DType::F32);
    check(bytes <= slot_bytes_, elements, " numbers for a slot of ", slot_bytes_, " bytes");
    return Tensor(std::make_shared<Storage>(slots_.at(static_cast<size_t>(rank)), bytes, device_), 0,
                  DType::F32, {elements});
}

}  // namespace sana
