#include "models/vae.h"

#include <algorithm>

#include "core/available_memory.h"

namespace sana {

namespace {

// Parts of the available memory that one activation may take: a handful are alive at once, beside the cache of two frames
// a convolution; a larger share gains nothing, as a few frames occupy a device. With ten
// latent frames of 480 x 832 the Wan decoder had 12 GiB in use and 21 GiB of the system.
constexpr int64_t kShare = 24, kMostFrames = 6;
// On the CPU an activation stays near this: its threads are busy with one latent frame, and memory that is touched for the first
// time costs more than larger pieces save. Wan decode on two cores, 17 frames of 256 x 256: 44.9 s one by one, 52.1 s in fours.
constexpr int64_t kHostActivation = int64_t{16} << 20;

}  // namespace

int64_t chunk_for(int64_t latent_frames, int64_t frame_bytes, Device device) {
    int64_t bytes = available_memory(device) / kShare;
    if (device == kCpu) bytes = std::min(bytes, kHostActivation);
    int64_t most = std::clamp<int64_t>(bytes / std::max<int64_t>(1, frame_bytes), 1, kMostFrames);
    int64_t later = std::max<int64_t>(1, latent_frames - 1), parts = (later + most - 1) / most;
    return (later + parts - 1) / parts;
}

void run_causal(const Tensor& x, int64_t unit, int64_t chunk,
                const std::function<Tensor(CausalCache& cache, const Tensor& x)>& advance,
                const std::function<void(const Tensor& result, int64_t done)>& emit) {
    CausalCache cache;
    for (int64_t start = 0, frames = x.dim(1); start < frames;) {
        int64_t n = start == 0 ? 1 : std::min(chunk * unit, frames - start);
        CausalCache before;
        if (n > unit) before = cache;  // shares its tensors
        Tensor result;
        try {
            result = advance(cache, slice(x, 1, start, n));
        } catch (const OutOfMemory&) {
            if (n <= unit) throw;
            cache = before;
            chunk = (n / unit + 1) / 2;
            continue;
        }
        start += n;
        emit(result, start);
    }
}

}  // namespace sana
