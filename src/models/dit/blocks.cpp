#include <algorithm>

#include "core/scope.h"
#include "models/dit/conditions.h"
#include "models/dit/dit.h"
#include "ops/attention.h"
#include "ops/glu_fp8.h"
#include "ops/layout.h"
#include "ops/linear_attention_fp8.h"
#include "ops/tape.h"

namespace sana {

namespace {

// layer_norm_modulate(x, shift, scale) in the form that the layer behind it reads.
LayerInput normalised(const Linear& layer, const Tensor& x, const Tensor& shift, const Tensor& scale,
                      float eps) {
    if (layer.by_codes()) return {{}, layer_norm_modulate_fp8(x, shift, scale, eps), x.dtype()};
    return {layer_norm_modulate(x, shift, scale, eps), {}, x.dtype()};
}

RmsNorm qk_norm(int64_t width, double eps) { return RmsNorm(width, {.eps = static_cast<float>(eps)}); }

}  // namespace

DiTBlock::DiTBlock(const DiTConfig& config) : norm_eps(static_cast<float>(config.norm_eps)) {
    int64_t width = config.width(), inner = config.inner();
    modulation = same_layout({6, width}, {.std = 1 / std::sqrt(static_cast<double>(width))});
    attention = {Linear(width, 3 * width, config.attention_bias),
                 Linear(width, width),
                 qk_norm(width, 1e-5),
                 qk_norm(width, 1e-5),
                 config.heads,
                 static_cast<float>(config.attention_eps)};
    cross = {Linear(width, width),
             Linear(width, 2 * width),
             Linear(width, width),
             qk_norm(width, config.cross_norm_eps),
             qk_norm(width, config.cross_norm_eps),
             config.cross_heads};
    ffn.inverted = Linear::from_conv(width, 2 * inner, true, 2);
    ffn.point = Linear::from_conv(inner, width, false, 2);
    ffn.depth_weight = {.shape = {3, 3, 2 * inner},
                        .stored = {2 * inner, 1, 3, 3},
                        .axes = {2, 3, 1, 0},
                        .init = {.std = 1.0 / 3}};
    ffn.depth_bias = same_layout({2 * inner}, {});
    ffn.temporal = {.shape = {width, 3, width},
                    .stored = {width, width, 3, 1},
                    .axes = {0, 2, 3, 1},
                    .init = {.std = 0.5 / std::sqrt(3.0 * static_cast<double>(width))},
                    .factor = true};
}

Tensor SelfAttention::forward(LayerInput x, const Rope& rope, BlockState* past, BlockState* next,
                              const Epilogue& epilogue) const {
    Scope scope("attention");
    DType dtype = x.dtype;
    Tensor all = x.into(qkv);
    x = {};
    int64_t width = all.cols() / 3;
    Tensor q = all.cols_slice(0, width), k = all.cols_slice(width, width),
           v = all.cols_slice(2 * width, width);
    all = {};
    LinearAttentionOptions options{.heads = heads,
                                   .q_norm = q_norm.weight.value,
                                   .k_norm = k_norm.weight.value,
                                   .norm_eps = q_norm.options.eps,
                                   .eps = eps,
                                   .rope = rope};
    if (past != nullptr && !past->empty()) options.past = &past->attention;
    if (next != nullptr) options.total = &next->attention;
    // What is no longer needed is free before the product allocates.
    auto taken = [&](auto op) {
        auto h = op(q, k, v, options);
        q = k = v = {};
        return h;
    };
    if (out.by_codes()) return out.forward(taken(linear_attention_fp8), dtype, epilogue);
    return out.forward(taken(linear_attention), epilogue);
}

Tensor LayerInput::into(const Linear& layer) const {
    return codes.defined() ? layer.forward(codes, dtype) : layer.forward(dense);
}

Shape LayerInput::shape() const { return codes.defined() ? codes.codes.shape() : dense.shape(); }

LayerInput LayerInput::reshape(const Shape& shape) const {
    if (!codes.defined()) return {dense.reshape(shape), {}, dtype};
    Shape rows;
    for (int i = 0; i + 1 < shape.rank(); ++i) rows.push_back(shape[i]);
    return {{}, {codes.codes.reshape(shape), codes.scale.reshape(rows)}, dtype};
}

LayerInput LayerInput::outer_slice(int64_t start, int64_t length) const {
    if (!codes.defined()) return {dense.outer_slice(start, length), {}, dtype};
    return {{}, {codes.codes.outer_slice(start, length), codes.scale.outer_slice(start, length)}, dtype};
}

Tensor CrossAttention::keys_values(const Tensor& text) const {
    Tensor all = kv.forward(text);
    int64_t width = all.cols() / 2;
    return concat({k_norm.forward(all.cols_slice(0, width)), all.cols_slice(width, width)}, -1);
}

Tensor CrossAttention::forward(const Tensor& x, const Tensor& keys_values, const Tensor& mask) const {
    Scope scope("cross");
    int64_t width = x.cols();
    AttentionOptions options{
        .heads = heads, .kv_heads = heads, .scale = 1 / std::sqrt(static_cast<float>(width / heads))};
    // One statement a step: what a step no longer needs is free before the next one allocates.
    Tensor h = q.forward(x);
    h = q_norm.forward(h);
    h = attention(h, keys_values.cols_slice(0, width), keys_values.cols_slice(width, width), mask, options);
    return out.forward(h, {.residual = x});
}

Tensor MixFFN::in_space(const LayerInput& x) const {
    Tensor h = x.into(inverted);
    if (point.by_codes()) {
        h = point.forward(depthwise_glu_fp8(h, depth_weight.value, depth_bias.value), h.dtype());
    } else {
        h = depthwise_glu(h, depth_weight.value, depth_bias.value);
        h = point.forward(h);
    }
    return h.reshape({h.dim(0), h.dim(1), h.dim(2) * h.dim(3), -1});
}

Tensor MixFFN::in_pieces(const LayerInput& x, Grid grid, int64_t frames) const {
    check(Tape::current() == nullptr, "a feed-forward in pieces is not recorded");
    int64_t batch = x.shape()[0], width = x.shape()[-1], positions = grid.h * grid.w;
    LayerInput all = x.reshape({batch * grid.t, grid.h, grid.w, width});  // frames do not meet here
    Tensor y = empty({batch * grid.t, positions, width}, x.dtype, depth_weight.value.device());
    for (int64_t start = 0; start < batch * grid.t; start += frames) {
        int64_t n = std::min(frames, batch * grid.t - start);
        LayerInput piece = all.outer_slice(start, n).reshape({1, n, grid.h, grid.w, width});
        Tensor place = y.outer_slice(start, n);
        copy(in_space(piece).reshape(place.shape()), place);
    }
    return y.reshape({batch, grid.t, positions, width});
}

Tensor MixFFN::forward(LayerInput x, Grid grid, int64_t wide_frames, BlockState* past, BlockState* next,
                       const Epilogue& epilogue) const {
    Scope scope("ffn");
    Shape shape = x.shape();
    bool pieces = wide_frames > 0 && wide_frames < shape[0] * grid.t;
    Tensor h = pieces ? in_pieces(x, grid, wide_frames)
                      : in_space(x.reshape({shape[0], grid.t, grid.h, grid.w, shape[2]}));
    x = {};
    if (next != nullptr) next->last_frame = slice(h, 1, grid.t - 1, 1).clone();
    Tensor before = past == nullptr ? Tensor() : past->last_frame;
    Epilogue end = epilogue;
    if (end.residual.defined()) end.residual = end.residual.reshape(h.shape());
    if (temporal.codes.defined() && temporal.value.defined()) {
        Fp8Study::add(temporal.value.name(), temporal_conv(h, temporal.codes, before, {}),
                      temporal_conv(h, temporal.value, before, {}));
    }
    h = temporal.value.defined() ? temporal_conv(h, temporal.value, before, end)
                                 : temporal_conv(h, temporal.codes, before, end);
    return h.reshape(shape);
}

Tensor DiTBlock::self_attend(Tensor x, const DiTConditions& c, BlockState* past, BlockState* next) const {
    Modulation m = c.modulation(modulation.value);
    LayerInput h = normalised(attention.qkv, x, m.shift_attention, m.scale_attention, norm_eps);
    return attention.forward(std::move(h), c.rope, past, next, {.gate = m.gate_attention, .residual = x});
}

Tensor DiTBlock::read_and_mix(Tensor x, const DiTConditions& c, const Tensor& keys_values, BlockState* past,
                              BlockState* next) const {
    Modulation m = c.modulation(modulation.value);
    x = cross.forward(x, keys_values, c.text_mask);
    LayerInput h = normalised(ffn.inverted, x, m.shift_ffn, m.scale_ffn, norm_eps);
    return ffn.forward(std::move(h), c.grid, c.wide_frames, past, next, {.gate = m.gate_ffn, .residual = x});
}

Tensor DiTBlock::forward(Tensor x, const DiTConditions& c, const Tensor& keys_values, BlockState* past,
                         BlockState* next) const {
    return read_and_mix(self_attend(std::move(x), c, past, next), c, keys_values, past, next);
}

}  // namespace sana
