#include "core/scope.h"
#include "models/dit/conditions.h"
#include "models/dit/dit.h"
#include "ops/attention.h"
#include "ops/layout.h"

namespace sana {

namespace {

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
                    .init = {.std = 0.5 / std::sqrt(3.0 * static_cast<double>(width))}};
}

Tensor SelfAttention::forward(const Tensor& x, const Rope& rope, BlockState* past, BlockState* next,
                              const Epilogue& epilogue) const {
    Scope scope("attention");
    int64_t width = x.cols();
    Tensor all = qkv.forward(x);
    LinearAttentionOptions options{.heads = heads,
                                   .q_norm = q_norm.weight.value,
                                   .k_norm = k_norm.weight.value,
                                   .norm_eps = q_norm.options.eps,
                                   .eps = eps,
                                   .rope = rope};
    if (past != nullptr && !past->empty()) options.past = &past->attention;
    if (next != nullptr) options.total = &next->attention;
    Tensor h = linear_attention(all.cols_slice(0, width), all.cols_slice(width, width),
                                all.cols_slice(2 * width, width), options);
    return out.forward(h, epilogue);
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
    Tensor h = attention(q_norm.forward(q.forward(x)), keys_values.cols_slice(0, width),
                         keys_values.cols_slice(width, width), mask, options);
    return out.forward(h, {.residual = x});
}

Tensor MixFFN::forward(const Tensor& x, Grid grid, BlockState* past, BlockState* next,
                       const Epilogue& epilogue) const {
    Scope scope("ffn");
    int64_t batch = x.dim(0), width = x.cols();
    Tensor h = inverted.forward(x).reshape({batch, grid.t, grid.h, grid.w, -1});
    h = depthwise_glu(h, depth_weight.value, depth_bias.value);
    h = point.forward(h).reshape({batch, grid.t, grid.h * grid.w, width});
    if (next != nullptr) next->last_frame = slice(h, 1, grid.t - 1, 1).clone();
    Tensor before = past == nullptr ? Tensor() : past->last_frame;
    Epilogue end = epilogue;
    if (end.residual.defined()) end.residual = end.residual.reshape(h.shape());
    return temporal_conv(h, temporal.value, before, end).reshape(x.shape());
}

Tensor DiTBlock::forward(Tensor x, const DiTConditions& c, const Tensor& keys_values, BlockState* past,
                         BlockState* next) const {
    Modulation m = c.modulation(modulation.value);
    Tensor h = layer_norm_modulate(x, m.shift_attention, m.scale_attention, norm_eps);
    x = attention.forward(h, c.rope, past, next, {.gate = m.gate_attention, .residual = x});
    x = cross.forward(x, keys_values, c.text_mask);
    h = layer_norm_modulate(x, m.shift_ffn, m.scale_ffn, norm_eps);
    return ffn.forward(h, c.grid, past, next, {.gate = m.gate_ffn, .residual = x});
}

}  // namespace sana
