// A build without CUDA has no devices whose memory could be shared.
#include "core/cuda/peer.h"

namespace sana::cuda {

void* allocate_peer(int, int64_t, PeerHandle&) { return nullptr; }
void release_peer(int, void*) {}
void* open_peer(int, const PeerHandle&) { return nullptr; }
void close_peer(int, void*) {}

}  // namespace sana::cuda
