// Gemma-2 decoder trunk as a text encoder: the hidden states after the final norm (transformers Gemma2Model).
// Letters: B samples, L text positions, C hidden width, A query heads, E key heads, D head width, V vocabulary.
#pragma once

#include <string>
#include <vector>

#include "models/json_config.h"
#include "nn/linear.h"
#include "nn/names.h"
#include "nn/norm.h"
#include "ops/rope.h"

namespace sana {

struct Gemma2Config {
    int64_t vocabulary = 256000;  // vocab_size
    int64_t hidden = 2304;        // hidden_size
    int64_t inner = 9216;         // intermediate_size
    int64_t layers = 26;          // num_hidden_layers
    int64_t heads = 8;            // num_attention_heads
    int64_t kv_heads = 4;         // num_key_value_heads
    int64_t head_dim = 256;
    int64_t max_positions = 8192;  // max_position_embeddings
    int64_t sliding_window = 4096;
    double query_scalar = 256;  // query_pre_attn_scalar; scores are divided by its root
    double soft_cap = 50;       // attn_logit_softcapping, 0: none
    double norm_eps = 1e-6;     // rms_norm_eps
    double rope_theta = 10000;
    // dtype "bfloat16": the reference then runs with its embedding scale and rotary frequencies rounded to bf16, also
    // after a cast back to fp32. A difference of 1e-3 in the states of a 40-token prompt.
    bool stored_bf16 = false;
    int64_t pad_id = 0, bos_id = 2;
    std::vector<bool> sliding;  // a layer: sliding window or full attention

    static Gemma2Config from_json(const JsonConfig& json);
    std::string to_json() const;
};

struct Gemma2Layer {
    RmsNorm before_attention, after_attention, before_ffn, after_ffn;
    Linear q, k, v, out;
    Linear gate_up;  // [2F,C]: gate rows, then up rows
    Linear down;

    explicit Gemma2Layer(const Gemma2Config& config);
    void visit(auto& visitor) {
        visitor("input_layernorm", before_attention);
        visitor("self_attn.q_proj", q);
        visitor("self_attn.k_proj", k);
        visitor("self_attn.v_proj", v);
        visitor("self_attn.o_proj", out);
        visitor("post_attention_layernorm", after_attention);
        visitor("pre_feedforward_layernorm", before_ffn);
        visitor("mlp.gate_up", gate_up);
        visitor("mlp.down_proj", down);
        visitor("post_feedforward_layernorm", after_ffn);
    }
};

// What a forward pass may be told beside its texts.
struct Gemma2Call {
    bool soft_cap = true;  // scores are capped as the model was published; SDPA backends leave that out
    Rope positions = {};   // of at least the longest text (Gemma2::positions()); none: made on the way
    // Several texts without padding, one behind the other in ids [1,L]: their lengths, which add up to L. Each sees
    // itself alone. Empty: a text a row.
    std::vector<int64_t> lengths = {};
};

class Gemma2 {
public:
    explicit Gemma2(const Gemma2Config& config);

    // The rotary tables of texts of up to `length` tokens: fp64 work of the host, so they are made once.
    Rope positions(int64_t length) const;

    // ids [B,L] int32, mask [B,L] int32 (0 = pad, on the right) or none -> [B,L,C] after the final norm.
    Tensor forward(const Tensor& ids, const Tensor& mask, const Gemma2Call& call = {}) const;

    const Gemma2Config& config() const { return config_; }
    DType dtype() const { return embed_tokens.value.dtype(); }
    Device device() const { return embed_tokens.value.device(); }
    void visit(auto& v) {
        v("embed_tokens.weight", embed_tokens);
        v("layers", layers);
        v("norm", norm);
    }

    Parameter embed_tokens;  // [V,C]
    std::vector<Gemma2Layer> layers;
    RmsNorm norm;

private:
    Rope rows_of_positions(const Gemma2Call& call, const std::vector<int64_t>& lengths) const;

    Gemma2Config config_;
};

// Keys with or without the prefix "model.", as the tensors at hand have them.
CheckpointNames gemma2_names(const TensorMap& tensors);

}  // namespace sana
