// The layers of the Wan 2.1 video autoencoder. Video [B,T,H,W,C]; every causal convolution keeps its last two input
// frames in a CausalCache, so that a clip in chunks gives what the whole clip gives.
#pragma once

#include <optional>

#include "models/vae.h"
#include "nn/linear.h"
#include "ops/norm.h"

namespace sana {

// x / max(||x||, 1e-12) * sqrt(C) * gamma, then an activation.
struct WanNorm {
    Parameter gamma;  // [C], stored with trailing ones

    WanNorm() = default;
    WanNorm(int64_t channels, int trailing_dims);
    Tensor forward(const Tensor& x, Activation activation) const;
    void visit(auto& v) { v("gamma", gamma); }
};

// out = shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x))))))
struct WanResidual {
    WanNorm norm1, norm2;
    Conv3d conv1, conv2;
    std::optional<Linear> shortcut;

    WanResidual(int64_t in, int64_t out);
    Tensor forward(const Tensor& x, CausalCache& cache) const;
    void visit(auto& v) {
        v("norm1", norm1);
        v("conv1", conv1);
        v("norm2", norm2);
        v("conv2", conv2);
        v("conv_shortcut", shortcut);
    }
};

// One head over the positions of a frame.
struct WanAttention {
    WanNorm norm;
    Linear qkv, proj;

    explicit WanAttention(int64_t channels);
    Tensor forward(const Tensor& x) const;
    void visit(auto& v) {
        v("norm", norm);
        v("to_qkv", qkv);
        v("proj", proj);
    }
};

struct WanMiddle {
    std::vector<WanResidual> resnets;
    std::vector<WanAttention> attentions;

    explicit WanMiddle(int64_t channels);
    Tensor forward(const Tensor& x, CausalCache& cache) const;
    void visit(auto& v) {
        v("resnets", resnets);
        v("attentions", attentions);
    }
};

// Half the size (a zero row below and a zero column to the right), then optionally every second frame.
struct WanDownsample {
    Conv3d spatial;
    std::optional<Conv3d> temporal;

    WanDownsample(int64_t channels, bool with_time);
    Tensor forward(const Tensor& x, CausalCache& cache) const;
    void visit(auto& v) {
        v("resample.1", spatial);
        v("time_conv", temporal);
    }
};

// Optionally twice the frames (not of the first chunk), then twice the size and half the channels.
struct WanUpsample {
    Conv3d spatial;
    std::optional<Conv3d> temporal;

    WanUpsample(int64_t channels, bool with_time);
    Tensor forward(const Tensor& x, CausalCache& cache) const;
    void visit(auto& v) {
        v("resample.1", spatial);
        v("time_conv", temporal);
    }

private:
    Tensor twice_the_frames(const Tensor& x, CausalCache& cache) const;
};

// A 3x3x3 convolution, zero padding in space; time is padded by its caller.
Conv3d wan_conv(int64_t in, int64_t out);

}  // namespace sana
