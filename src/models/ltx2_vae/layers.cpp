#include "models/ltx2_vae/layers.h"

#include "ops/depth_to_space.h"
#include "ops/norm.h"
#include "ops/pointwise.h"

namespace sana {

Ltx2Conv::Ltx2Conv(int64_t in, int64_t out, bool reflect)
    : conv(in, out, {3, 3, 3},
           {.pad_before = {0, 1, 1},
            .pad_after = {0, 1, 1},
            .time_mode = PadMode::replicate,
            .space_mode = reflect ? PadMode::reflect : PadMode::zeros}) {}

Tensor Ltx2Conv::forward(const Tensor& x, Ltx2Context context, const Tensor& residual) const {
    if (context.cache == nullptr) return conv.forward_padded(x, {}, 1, 1, residual);
    return causal_conv(conv, x, *context.cache, residual);
}

Tensor ltx2_norm_silu(const Tensor& x) {
    return rms_norm(x, {}, {.eps = 1e-8f, .activation = Activation::silu});
}

Tensor Ltx2Residual::forward(const Tensor& x, Ltx2Context context) const {
    // One statement a step: what a step no longer needs is free before the next one allocates.
    Tensor h = ltx2_norm_silu(x);
    h = conv1.forward(h, context);
    h = ltx2_norm_silu(h);
    return conv2.forward(h, context, x);
}

Tensor space_to_depth(const Tensor& x, Stride s) {
    int64_t B = x.dim(0), T = x.dim(1) / s[0], H = x.dim(2) / s[1], W = x.dim(3) / s[2], C = x.dim(4);
    return permute(x.reshape({B, T, s[0], H, s[1], W, s[2], C}), {0, 1, 3, 5, 7, 2, 4, 6})
        .reshape({B, T, H, W, C * s[0] * s[1] * s[2]});
}

Ltx2Downsample::Ltx2Downsample(int64_t in, int64_t out, Stride s, bool reflect)
    : conv(in, out / (s[0] * s[1] * s[2]), reflect), stride(s), group(in * s[0] * s[1] * s[2] / out) {}

Tensor Ltx2Downsample::forward(const Tensor& x, Ltx2Context context) const {
    bool first = context.cache == nullptr || !context.cache->started;
    Tensor h = stride[0] == 2 && first ? concat({slice(x, 1, 0, 1), x}, 1) : x;
    Tensor shortcut = group_mean(space_to_depth(h, stride), group);
    h = conv.forward(h, context);
    return add(space_to_depth(h, stride), shortcut);
}

Ltx2Upsample::Ltx2Upsample(int64_t in, int64_t factor, Stride s, bool with_residual, bool reflect)
    : conv(in, in * s[0] * s[1] * s[2] / factor, reflect), stride(s), residual(with_residual) {}

Tensor Ltx2Upsample::forward(const Tensor& x, Ltx2Context context) const {
    bool first = context.cache == nullptr || !context.cache->started;
    // The shortcut, D(x) repeated as a block of channels, equals D(x repeated).
    return depth_to_space(conv.forward(x, context), residual ? x : Tensor(),
                          {.stride = stride, .drop = first ? stride[0] - 1 : 0});
}

}  // namespace sana
