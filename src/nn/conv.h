// Convolutions over video [B,T,H,W,C] with learned weights. Checkpoints store [O,C,KT,KH,KW].
#pragma once

#include <cmath>

#include "nn/module.h"
#include "ops/conv.h"

namespace sana {

struct Conv3d {
    Parameter weight;  // [O,KT,KH,KW,C]
    Parameter bias;    // [O]
    Conv3dOptions options;

    Conv3d() = default;
    Conv3d(int64_t in, int64_t out, std::array<int64_t, 3> kernel, const Conv3dOptions& o) : options(o) {
        weight.shape = {out, kernel[0], kernel[1], kernel[2], in};
        weight.stored = {out, in, kernel[0], kernel[1], kernel[2]};
        weight.axes = {0, 2, 3, 4, 1};
        weight.init = {.std = 1 / std::sqrt(static_cast<double>(in * kernel[0] * kernel[1] * kernel[2]))};
        bias = same_layout({out}, {});
    }

    // A 2-D convolution of the checkpoint ([O,C,KH,KW]), applied to every frame.
    static Conv3d per_frame(int64_t in, int64_t out, std::array<int64_t, 2> kernel, const Conv3dOptions& o) {
        Conv3d layer(in, out, {1, kernel[0], kernel[1]}, o);
        layer.weight.stored = {out, in, kernel[0], kernel[1]};
        layer.weight.axes = {0, 2, 3, 1};
        return layer;
    }

    // past and residual: see ops/conv.h.
    Tensor forward(const Tensor& x, const Tensor& past = {}, const Tensor& residual = {}) const {
        Conv3dOptions o = options;
        o.past = past;
        o.residual = residual;
        return conv3d(x, weight.value, bias.value, o);
    }
    // With time padding that the caller decides for this call (streams: the first chunk pads, later ones have a past).
    Tensor forward_padded(const Tensor& x, const Tensor& past, int64_t frames_before, int64_t frames_after,
                          const Tensor& residual = {}) const {
        Conv3dOptions o = options;
        o.past = past;
        o.pad_before[0] = frames_before;
        o.pad_after[0] = frames_after;
        o.residual = residual;
        return conv3d(x, weight.value, bias.value, o);
    }
    void visit(auto& v) {
        v("weight", weight);
        v("bias", bias);
    }
};

}  // namespace sana
