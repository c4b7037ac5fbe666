// The layers of the LTX-2 video autoencoder. Time is padded by repeating the first frame (and, when not causal, the
// last); a causal convolution keeps its last two input frames in a CausalCache.
#pragma once

#include <array>

#include "models/vae.h"

namespace sana {

// How a half of the autoencoder pads. cache: null when it is not causal and sees the whole clip.
struct Ltx2Context {
    CausalCache* cache = nullptr;
};

// 3x3x3; the checkpoint wraps every convolution once more (name.conv.weight).
struct Ltx2Conv {
    Conv3d conv;

    Ltx2Conv() = default;
    Ltx2Conv(int64_t in, int64_t out, bool reflect);
    Tensor forward(const Tensor& x, Ltx2Context context, const Tensor& residual = {}) const;
    void visit(auto& v) { v("conv", conv); }
};

// x / sqrt(mean_c(x^2) + 1e-8), then SiLU.
Tensor ltx2_norm_silu(const Tensor& x);

// out = x + conv2(silu(norm(conv1(silu(norm(x))))))
struct Ltx2Residual {
    Ltx2Conv conv1, conv2;

    Ltx2Residual(int64_t channels, bool reflect)
        : conv1(channels, channels, reflect), conv2(channels, channels, reflect) {}
    Tensor forward(const Tensor& x, Ltx2Context context) const;
    void visit(auto& v) {
        v("conv1", conv1);
        v("conv2", conv2);
    }
};

using Stride = std::array<int64_t, 3>;  // frames, rows, columns

// [B,T,H,W,C] -> [B,T/st,H/sh,W/sw,C*k], channel ((c*st + a)*sh + p)*sw + q: what depth_to_space undoes.
Tensor space_to_depth(const Tensor& x, Stride s);

// Space-to-depth of a convolution, plus the mean of the input's groups of channels. The first frame of a clip is
// doubled when frames are halved.
struct Ltx2Downsample {
    Ltx2Conv conv;
    Stride stride;
    int64_t group;

    Ltx2Downsample(int64_t in, int64_t out, Stride s, bool reflect);
    Tensor forward(const Tensor& x, Ltx2Context context) const;
    void visit(auto& v) { v("conv", conv); }
};

// Depth-to-space of a convolution, plus (residual) that of the input with its channels repeated as a block. The first
// st - 1 frames of a clip are dropped.
struct Ltx2Upsample {
    Ltx2Conv conv;
    Stride stride;
    bool residual;

    Ltx2Upsample(int64_t in, int64_t factor, Stride s, bool residual, bool reflect);
    Tensor forward(const Tensor& x, Ltx2Context context) const;
    void visit(auto& v) { v("conv", conv); }
};

}  // namespace sana
