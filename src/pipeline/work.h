// How much a part of a generation has to compute, counted from its config and shapes: what benchmarks compare with.
#pragma once

#include <vector>

#include "models/dit/config.h"
#include "models/gemma2/gemma2.h"
#include "pipeline/vae.h"

namespace sana {

struct Work {
    double flop = 0;     // two a multiply-add
    double product = 0;  // of these in matrix products and dense convolutions, which nothing makes cheaper
    double bytes =
        0;  // memory traffic that no product hides: one read and one write of what stands between products

    // The least seconds at these speeds.
    double floor(double flop_per_s, double bytes_per_s) const {
        return product / flop_per_s + bytes / bytes_per_s;
    }
};

// One forward pass on latents [B,T,H,W,Z] with L text positions whose keys and values are there already. Of the bytes:
// the two modulated norms, both passes of linear attention, cross attention and the depthwise convolution. branches: texts a
// sample, which share what comes before the first cross attention (DiT::forward()).
Work dit_work(const DiTConfig& config, const Shape& latents, int64_t text_length, int64_t element_size,
              int64_t branches = 1);

// Texts of these lengths, each by itself.
Work text_work(const Gemma2Config& config, const std::vector<int64_t>& lengths);

// Latents [B,t,h,w,Z] to frames. Upsampling and the convolution behind it count as the convolution on the large image.
Work decode_work(const VaeConfig& config, const Shape& latents);

}  // namespace sana
