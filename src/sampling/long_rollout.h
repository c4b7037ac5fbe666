// Few-step sampling of a long clip, chunk by chunk, by a block-causal model with a constant-size state.
// Source: NVlabs/Sana, LongSANA (LongLiveFlowEuler).
#pragma once

#include <functional>
#include <vector>

#include "core/tensor.h"

namespace sana {

// First frames of the chunks of a clip: chunks of `chunk` frames, the remainder added to the first one.
std::vector<int64_t> chunk_starts(int64_t frames, int64_t chunk);

// sigma of a nominal time 0..1000: the entry of the table sh(1 - k/1000), k = 0..999, whose 1000 * sigma is nearest (the
// first on a tie); sh(u) = shift u / (1 + (shift - 1) u).
double table_sigma(double t, double shift);

struct LongRollout {
    std::vector<double> steps = {1000, 960, 889, 727};  // nominal times of the evaluations of a chunk
    double flow_shift = 7;

    // The model on the chunk [start, end) at time t; save: the chunk joins the state (its velocity is not used).
    std::function<Tensor(const Tensor& x, double t, int64_t start, int64_t end, bool save)> velocity;
    // Standard normal noise of the shape of x, new at every call.
    std::function<Tensor(const Tensor& x)> fresh_noise;
    // A chunk is finished.
    std::function<void(int64_t start, const Tensor& clean)> on_chunk;

    // noise [B,T,H,W,Z] fp32 of the whole clip -> latents. Every evaluation estimates the clean chunk x - sigma v (in
    // fp64), which is noised afresh for the next one; a last pass at time 0 writes the finished chunk into the state.
    Tensor run(const Tensor& noise, const std::vector<int64_t>& starts) const;
};

}  // namespace sana
