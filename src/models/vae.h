// What the video autoencoders share.
#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "nn/conv.h"
#include "ops/layout.h"
#include "ops/tape.h"

namespace sana {

// Which half of an autoencoder is built and loaded: text to video needs no encoder.
enum class VaeParts { both, encoder, decoder };

// Posterior of a clip, each [B,t,h,w,Z].
struct VaeMoments {
    Tensor mean, logvar;
};

struct VaeDecodeOptions {
    std::function<void(const Tensor& frames)> sink =
        {};  // receives finished frames; then decode() returns none
    std::function<void(int64_t done, int64_t total)> progress = {};  // latent frames, or tiles when tiled
    int64_t chunk = 0;                                               // latent frames at once; 0: by size
};

// The memory of one clip's causal convolutions, walked in the order of execution.
struct CausalCache {
    std::vector<Tensor> slots;  // up to two input frames each
    size_t next = 0;
    bool started = false;  // whether the first chunk has gone through
    bool whole =
        false;  // the clip goes through at once, first frame and all others together: nothing is remembered

    Tensor& slot() {
        if (next == slots.size()) slots.emplace_back();
        return slots[next++];
    }
};

// Keeps the last `frames` of slot ++ x, copied so that no large chunk stays alive behind a small view; under a tape, which
// keeps everything and follows views, but no copies, as they are.
inline void remember(Tensor& slot, const Tensor& x, int64_t frames) {
    int64_t have = x.dim(1);
    if (have >= frames || !slot.defined()) {
        int64_t n = std::min(have, frames);
        Tensor last = slice(x, 1, have - n, n);
        bool copied = last.storage() == x.storage() && Tape::current() == nullptr;
        slot = copied ? last.clone() : last;
    } else {
        int64_t keep = std::min(slot.dim(1), frames - have);
        slot = concat({slice(slot, 1, slot.dim(1) - keep, keep), x}, 1);
    }
}

// A causal convolution of KT frames: what its cache lacks of KT - 1 frames of history is padded in front.
inline Tensor causal_conv(const Conv3d& conv, const Tensor& x, CausalCache& cache,
                          const Tensor& residual = {}) {
    Tensor& slot = cache.slot();
    int64_t history = conv.weight.shape[1] - 1, have = slot.defined() ? slot.dim(1) : 0;
    Tensor past = slot;
    Tensor y = conv.forward_padded(x, past, history - have, 0, residual);
    if (!cache.whole) remember(slot, x, history);
    return y;
}

// A clip that is decoded piece by piece, as its latent frames come in (decode_chunk of the autoencoders). One a clip.
struct VaeDecodeStream {
    CausalCache cache;
};

// Whether an autoencoder that joins `temporal_factor` frames into one latent frame can encode this many: 1 + factor*k.
inline bool valid_frames(int64_t frames, int64_t temporal_factor) {
    return frames > 0 && (frames - 1) % temporal_factor == 0;
}

// Latent frames that are decoded or encoded at once when one of them makes largest activations of frame_bytes: as many as
// the device has memory for (the CPU: few enough that a long clip takes no more memory than a short one), in equal parts.
int64_t chunk_for(int64_t latent_frames, int64_t frame_bytes, Device device);

// Runs a causal half of an autoencoder over a clip, one frame first, then chunks of at most chunk * unit frames, and hands
// on what each gives. When memory runs out a chunk is tried again in halves; only a chunk of one unit that does not fit is
// an error.   unit: frames that belong together (decoding: 1, encoding: the temporal factor)
// advance: the next frames and the cache as the frames before left it -> their result.
void run_causal(const Tensor& x, int64_t unit, int64_t chunk,
                const std::function<Tensor(CausalCache& cache, const Tensor& x)>& advance,
                const std::function<void(const Tensor& result, int64_t done)>& emit);

// Spatial tiling, on request only: it changes the result near tile borders. Sizes in pixels, rounded down to whole
// latent cells.
struct VaeTiling {
    int64_t tile = 0, stride = 0;
    bool active(int64_t height, int64_t width) const { return tile > 0 && (height > tile || width > tile); }
};

// How blend_tiles cuts its input; tile, stride and smallest in rows and columns of the input.
struct TileGrid {
    int64_t tile = 0, stride = 0;
    int64_t factor = 1;    // a result is this many times larger in space, -factor times smaller when negative
    int64_t smallest = 1;  // what would remain as a narrower tile at the end goes to the tile before
};

// f on overlapping tiles of x [B,T,H,W,C], the results blended linearly over their overlap, first with the tile above,
// then with the one to the left, and cut to the stride. Source: diffusers' tiled_decode.
Tensor blend_tiles(const Tensor& x, const TileGrid& grid, const std::function<Tensor(const Tensor&)>& f,
                   const std::function<void(int64_t done, int64_t total)>& progress = {});

// The grids of an autoencoder: over pixels for encoding, over latent cells for decoding.
inline TileGrid encode_grid(const VaeTiling& tiling, int64_t spatial_factor, int64_t smallest = 1) {
    int64_t s = spatial_factor;
    return {tiling.tile / s * s, tiling.stride / s * s, -s, smallest * s};
}
inline TileGrid decode_grid(const VaeTiling& tiling, int64_t spatial_factor, int64_t smallest = 1) {
    return {tiling.tile / spatial_factor, tiling.stride / spatial_factor, spatial_factor, smallest};
}

}  // namespace sana
