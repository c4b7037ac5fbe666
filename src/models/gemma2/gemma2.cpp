#include "models/gemma2/gemma2.h"

#include <algorithm>
#include <numeric>

#include "core/scope.h"
#include "ops/attention.h"
#include "ops/embed.h"
#include "ops/layout.h"
#include "ops/pointwise.h"

namespace sana {

namespace {

RmsNorm gemma_norm(const Gemma2Config& config) {
    return RmsNorm(config.hidden, {.eps = static_cast<float>(config.norm_eps), .weight_offset = 1});
}

}  // namespace

Gemma2Layer::Gemma2Layer(const Gemma2Config& config)
    : before_attention(gemma_norm(config)),
      after_attention(gemma_norm(config)),
      before_ffn(gemma_norm(config)),
      after_ffn(gemma_norm(config)),
      q(config.hidden, config.heads * config.head_dim, false),
      k(config.hidden, config.kv_heads * config.head_dim, false),
      v(config.hidden, config.kv_heads * config.head_dim, false),
      out(config.heads * config.head_dim, config.hidden, false),
      gate_up(config.hidden, 2 * config.inner, false),
      down(config.inner, config.hidden, false) {}

Gemma2::Gemma2(const Gemma2Config& config) : norm(gemma_norm(config)), config_(config) {
    embed_tokens = same_layout({config.vocabulary, config.hidden},
                               {.std = 1 / std::sqrt(static_cast<double>(config.hidden))});
    for (int64_t i = 0; i < config.layers; ++i) layers.emplace_back(config);
}

Rope Gemma2::positions(int64_t length) const {
    return rope_1d(length, config_.head_dim, config_.rope_theta, embed_tokens.value.device(),
                   config_.stored_bf16);
}

Rope Gemma2::rows_of_positions(const Gemma2Call& call, const std::vector<int64_t>& lengths) const {
    int64_t longest = *std::max_element(lengths.begin(), lengths.end());
    check_input(longest <= config_.max_positions, "a text of ", longest, " tokens is longer than the ",
                config_.max_positions, " positions of the text encoder");
    Rope all = call.positions.cos.defined() ? call.positions : positions(longest);
    check(all.cos.dim(0) >= longest, "positions of ", all.cos.dim(0), " tokens for a text of ", longest);
    std::vector<Tensor> cos, sin;
    for (int64_t length : lengths) {
        cos.push_back(all.cos.outer_slice(0, length));
        sin.push_back(all.sin.outer_slice(0, length));
    }
    return lengths.size() == 1 ? Rope{cos[0], sin[0]} : Rope{concat(cos, 0), concat(sin, 0)};
}

Tensor Gemma2::forward(const Tensor& ids, const Tensor& mask, const Gemma2Call& call) const {
    Scope scope("text_encoder");
    bool packed = !call.lengths.empty();
    check(!packed || (ids.dim(0) == 1 && !mask.defined() &&
                      std::accumulate(call.lengths.begin(), call.lengths.end(), int64_t{0}) == ids.dim(1)),
          "texts of ", call.lengths.size(), " lengths in ids ", ids, " with a mask ", mask);
    std::vector<int64_t> lengths = packed ? call.lengths : std::vector<int64_t>{ids.dim(1)};
    Rope rope = rows_of_positions(call, lengths);
    float scale = std::sqrt(static_cast<float>(config_.hidden));
    Tensor x =
        embedding(ids, embed_tokens.value, config_.stored_bf16 ? static_cast<float>(bf16(scale)) : scale);
    AttentionOptions options{.heads = config_.heads,
                             .kv_heads = config_.kv_heads,
                             .scale = static_cast<float>(1 / std::sqrt(config_.query_scalar)),
                             .soft_cap = call.soft_cap ? static_cast<float>(config_.soft_cap) : 0.0f,
                             .causal = true};
    auto attend = [&](const Tensor& q, const Tensor& k, const Tensor& v) {
        if (lengths.size() == 1) return attention(q, k, v, mask, options);
        std::vector<Tensor> texts;
        int64_t start = 0;
        for (int64_t length : lengths) {
            auto text = [&](const Tensor& all) {
                return all.reshape({all.dim(1), all.dim(2)})
                    .outer_slice(start, length)
                    .reshape({1, length, all.dim(2)});
            };
            texts.push_back(attention(text(q), text(k), text(v), {}, options));
            start += length;
        }
        return concat(texts, 1);
    };
    for (size_t i = 0; i < layers.size(); ++i) {
        Scope layer_scope("layers", static_cast<int64_t>(i));
        const Gemma2Layer& layer = layers[i];
        capture("in", x);
        options.window = config_.sliding[i] ? config_.sliding_window : 0;
        Tensor h = layer.before_attention.forward(x);
        Tensor q = rotate_half(layer.q.forward(h), rope, config_.heads);
        Tensor k = rotate_half(layer.k.forward(h), rope, config_.kv_heads);
        h = attend(q, k, layer.v.forward(h));
        x = add(x, layer.after_attention.forward(layer.out.forward(h)));
        h = layer.gate_up.forward(layer.before_ffn.forward(x));
        h = gelu_multiply(h.cols_slice(0, config_.inner), h.cols_slice(config_.inner, config_.inner));
        x = add(x, layer.after_ffn.forward(layer.down.forward(h)));
    }
    return norm.forward(x);
}

CheckpointNames gemma2_names(const TensorMap& tensors) {
    CheckpointNames names;
    names.format = "transformers";
    names.rules = {{"layers.*.mlp.gate_up", "layers.*.mlp.gate_proj|layers.*.mlp.up_proj"}};
    names.ignored = {"lm_head", "layers.*.self_attn.rotary_emb", "rotary_emb"};
    if (tensors.count("model.embed_tokens.weight") != 0) names.prefix = "model.";
    return names;
}

}  // namespace sana
