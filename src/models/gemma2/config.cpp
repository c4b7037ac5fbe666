#include <cmath>
#include <nlohmann/json.hpp>

#include "models/gemma2/gemma2.h"

namespace sana {

Gemma2Config Gemma2Config::from_json(const JsonConfig& json) {
    Gemma2Config c;
    constexpr int64_t kWide = 1 << 20;
    json.require("hidden_activation", "gelu_pytorch_tanh", "that is Gemma-2's activation");
    json.require("attention_bias", false, "Gemma-2 has no biases");
    c.vocabulary = json.integer("vocab_size", c.vocabulary, 1, int64_t{1} << 24);
    c.hidden = json.integer("hidden_size", c.hidden, 1, kWide);
    c.inner = json.integer("intermediate_size", c.inner, 1, kWide);
    c.layers = json.integer("num_hidden_layers", c.layers, 1, 1024);
    c.heads = json.integer("num_attention_heads", c.heads, 1, 1024);
    c.kv_heads = json.integer("num_key_value_heads", c.kv_heads, 1, 1024);
    c.head_dim = json.integer("head_dim", c.head_dim, 2, 4096);
    c.max_positions = json.integer("max_position_embeddings", c.max_positions, 1, int64_t{1} << 24);
    c.sliding_window = json.integer("sliding_window", c.sliding_window, 1, int64_t{1} << 24);
    c.query_scalar = json.number("query_pre_attn_scalar", c.query_scalar, 1e-6, 1e9);
    // An explicit null means no cap; a missing key means the default.
    c.soft_cap = json.is_null("attn_logit_softcapping")
                     ? 0
                     : json.number("attn_logit_softcapping", c.soft_cap, 1e-3, 1e6);
    c.norm_eps = json.number("rms_norm_eps", c.norm_eps, 0, 1);
    c.rope_theta = json.number(
        "rope_theta", json.object("rope_parameters").number("rope_theta", c.rope_theta, 1, 1e12), 1, 1e12);
    c.stored_bf16 = json.text("dtype", json.text("torch_dtype", "float32")) == "bfloat16";
    c.pad_id = json.integer("pad_token_id", c.pad_id, 0, c.vocabulary - 1);
    c.bos_id = json.integer("bos_token_id", c.bos_id, 0, c.vocabulary - 1);
    if (c.heads % c.kv_heads != 0)
        throw InputError(json.error("num_key_value_heads", "must divide num_attention_heads"));
    if (c.head_dim % 2 != 0) throw InputError(json.error("head_dim", "must be even"));
    for (int64_t i = 0; i < c.layers; ++i) c.sliding.push_back(i % 2 == 0);
    if (json.has("layer_types")) {
        std::vector<std::string> types = json.texts("layer_types", {});
        if (static_cast<int64_t>(types.size()) != c.layers) {
            throw InputError(
                json.error("layer_types", join("has ", types.size(), " entries for ", c.layers, " layers")));
        }
        for (size_t i = 0; i < types.size(); ++i) {
            if (types[i] != "sliding_attention" && types[i] != "full_attention") {
                throw InputError(
                    json.error("layer_types", "holds " + types[i] + "; sliding_attention or full_attention"));
            }
            c.sliding[i] = types[i] == "sliding_attention";
        }
    }
    return c;
}

std::string Gemma2Config::to_json() const {
    std::vector<std::string> types;
    for (bool window : sliding) types.push_back(window ? "sliding_attention" : "full_attention");
    // transformers takes a whole number alone, and every model has one.
    bool whole = query_scalar == std::floor(query_scalar);
    nlohmann::ordered_json json{
        {"architectures", {"Gemma2Model"}},
        {"model_type", "gemma2"},
        {"dtype", stored_bf16 ? "bfloat16" : "float32"},
        {"vocab_size", vocabulary},
        {"hidden_size", hidden},
        {"intermediate_size", inner},
        {"num_hidden_layers", layers},
        {"num_attention_heads", heads},
        {"num_key_value_heads", kv_heads},
        {"head_dim", head_dim},
        {"hidden_activation", "gelu_pytorch_tanh"},
        {"max_position_embeddings", max_positions},
        {"rms_norm_eps", norm_eps},
        {"rope_parameters", {{"rope_theta", rope_theta}, {"rope_type", "default"}}},
        {"attention_bias", false},
        {"query_pre_attn_scalar", whole ? nlohmann::ordered_json(static_cast<int64_t>(query_scalar))
                                        : nlohmann::ordered_json(query_scalar)},
        {"sliding_window", sliding_window},
        {"layer_types", types},
        {"attn_logit_softcapping",
         soft_cap > 0 ? nlohmann::ordered_json(soft_cap) : nlohmann::ordered_json()},
        {"final_logit_softcapping", 30.0},
        {"pad_token_id", pad_id},
        {"bos_token_id", bos_id},
        {"eos_token_id", 1},
        {"tie_word_embeddings", true},
    };
    return json.dump(2) + "\n";
}

}  // namespace sana
