#include "models/wan_vae/layers.h"

#include <cmath>

#include "core/scope.h"
#include "ops/attention.h"

namespace sana {

Conv3d wan_conv(int64_t in, int64_t out) {
    return Conv3d(in, out, {3, 3, 3}, {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}});
}

WanNorm::WanNorm(int64_t channels, int trailing_dims) {
    gamma = same_layout({channels}, {.mean = 1});
    for (int i = 0; i < trailing_dims; ++i) gamma.stored.push_back(1);
}

Tensor WanNorm::forward(const Tensor& x, Activation activation) const {
    return rms_norm(x, gamma.value, {.floor = 1e-12f, .activation = activation});
}

WanResidual::WanResidual(int64_t in, int64_t out)
    : norm1(in, 3), norm2(out, 3), conv1(wan_conv(in, out)), conv2(wan_conv(out, out)) {
    if (in != out) shortcut = Linear::from_conv(in, out, true, 3);
}

Tensor WanResidual::forward(const Tensor& x, CausalCache& cache) const {
    // One statement a step: what a step no longer needs is free before the next one allocates.
    Tensor h = norm1.forward(x, Activation::silu);
    h = causal_conv(conv1, h, cache);
    h = norm2.forward(h, Activation::silu);
    return causal_conv(conv2, h, cache, shortcut ? shortcut->forward(x) : x);
}

WanAttention::WanAttention(int64_t channels)
    : norm(channels, 2),
      qkv(Linear::from_conv(channels, 3 * channels, true, 2)),
      proj(Linear::from_conv(channels, channels, true, 2)) {}

Tensor WanAttention::forward(const Tensor& x) const {
    Scope scope("attention");
    int64_t channels = x.cols();
    Tensor frames = x.reshape({x.dim(0) * x.dim(1), x.dim(2) * x.dim(3), channels});
    Tensor all = qkv.forward(norm.forward(frames, Activation::none));
    Tensor h = attention(all.cols_slice(0, channels), all.cols_slice(channels, channels),
                         all.cols_slice(2 * channels, channels), {},
                         {.scale = 1 / std::sqrt(static_cast<float>(channels))});
    return proj.forward(h, {.residual = frames}).reshape(x.shape());
}

WanMiddle::WanMiddle(int64_t channels) {
    attentions.emplace_back(channels);
    resnets.emplace_back(channels, channels);
    resnets.emplace_back(channels, channels);
}

Tensor WanMiddle::forward(const Tensor& x, CausalCache& cache) const {
    Scope scope("mid_block");
    return resnets[1].forward(attentions[0].forward(resnets[0].forward(x, cache)), cache);
}

WanDownsample::WanDownsample(int64_t channels, bool with_time)
    : spatial(Conv3d::per_frame(channels, channels, {3, 3}, {.stride = {1, 2, 2}, .pad_after = {0, 1, 1}})) {
    if (with_time) temporal = Conv3d(channels, channels, {3, 1, 1}, {.stride = {2, 1, 1}});
}

Tensor WanDownsample::forward(const Tensor& x, CausalCache& cache) const {
    Tensor h = spatial.forward(x);
    if (!temporal) return h;
    if (cache.whole) {
        Tensor first = slice(h, 1, 0, 1);
        int64_t later = h.dim(1) - 1;
        return later == 0 ? first : concat({first, temporal->forward(slice(h, 1, 1, later), first)}, 1);
    }
    Tensor& slot = cache.slot();
    Tensor past = slot;
    remember(slot, h, 1);
    return past.defined() ? temporal->forward(h, past) : h;  // the first frame passes as it is
}

WanUpsample::WanUpsample(int64_t channels, bool with_time)
    : spatial(Conv3d::per_frame(channels, channels / 2, {3, 3},
                                {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}, .upsample = true})) {
    if (with_time) temporal = Conv3d(channels, 2 * channels, {3, 1, 1}, {});
}

Tensor WanUpsample::twice_the_frames(const Tensor& x, CausalCache& cache) const {
    Tensor h = causal_conv(*temporal, x, cache);
    // The channel halves are consecutive frames.
    return permute(h.reshape({x.dim(0), x.dim(1), x.dim(2), x.dim(3), 2, x.cols()}), {0, 1, 4, 2, 3, 5})
        .reshape({x.dim(0), 2 * x.dim(1), x.dim(2), x.dim(3), x.cols()});
}

Tensor WanUpsample::forward(const Tensor& x, CausalCache& cache) const {
    Tensor h = x;
    // The first frame passes as it is and leaves no history: the convolution starts afresh at the second one.
    if (temporal && cache.whole && x.dim(1) > 1) {
        h = concat({slice(x, 1, 0, 1), twice_the_frames(slice(x, 1, 1, x.dim(1) - 1), cache)}, 1);
    } else if (temporal && cache.started) {
        h = twice_the_frames(x, cache);
    } else if (temporal) {
        cache.slot();
    }
    return spatial.forward(h);
}

}  // namespace sana
