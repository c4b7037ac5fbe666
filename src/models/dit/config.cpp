#include "models/dit/config.h"

#include <nlohmann/json.hpp>

namespace sana {

DiTConfig DiTConfig::from_json(const JsonConfig& json) {
    DiTConfig c;
    constexpr int64_t kWide = 1 << 16;
    c.in_channels = json.integer("in_channels", c.in_channels, 1, kWide);
    c.out_channels = json.integer("out_channels", c.in_channels, 1, kWide);
    c.heads = json.integer("num_attention_heads", c.heads, 1, 1024);
    c.head_dim = json.integer("attention_head_dim", c.head_dim, 6, 4096);
    c.layers = json.integer("num_layers", c.layers, 1, 1024);
    c.cross_heads = json.integer("num_cross_attention_heads", c.cross_heads, 1, 1024);
    c.cross_head_dim = json.integer("cross_attention_head_dim", c.cross_head_dim, 1, 4096);
    c.caption_channels = json.integer("caption_channels", c.caption_channels, 1, kWide);
    c.mlp_ratio = json.number("mlp_ratio", c.mlp_ratio, 0.01, 64);
    c.attention_bias = json.boolean("attention_bias", c.attention_bias);
    c.sample_size = json.integer("sample_size", c.sample_size, 1, kWide);
    std::vector<int64_t> patch = json.integers("patch_size", {1, 2, 2}, 1, 16, 3);
    c.patch = {patch[0], patch[1], patch[2]};
    c.norm_eps = json.number("norm_eps", c.norm_eps, 0, 1);
    c.guidance_embeds = json.boolean("guidance_embeds", c.guidance_embeds);
    c.rope_max_seq_len = json.integer("rope_max_seq_len", c.rope_max_seq_len, 1, 1 << 20);
    json.require("norm_elementwise_affine", false,
                 "the block norms of SANA-Video have no weights of their own");
    json.require("qk_norm", "rms_norm_across_heads", "q and k are normalised over all heads");

    int64_t cross = json.integer("cross_attention_dim", c.cross_heads * c.cross_head_dim, 1, kWide);
    int64_t cross_width = c.cross_heads * c.cross_head_dim;
    if (cross != c.width()) {
        throw InputError(json.error(
            "cross_attention_dim",
            join("is ", cross, "; it must equal num_attention_heads * attention_head_dim = ", c.width())));
    }
    if (cross_width != c.width()) {
        throw InputError(
            json.error("cross_attention_head_dim",
                       join("times num_cross_attention_heads is ", cross_width, "; it must be ", c.width())));
    }
    if (c.head_dim % 2 != 0) throw InputError(json.error("attention_head_dim", "must be even"));
    if (c.inner() < 1) throw InputError(json.error("mlp_ratio", "leaves no inner channels"));
    return c;
}

std::string DiTConfig::to_json() const {
    nlohmann::ordered_json json{
        {"_class_name", "SanaVideoTransformer3DModel"},
        {"in_channels", in_channels},
        {"out_channels", out_channels},
        {"num_attention_heads", heads},
        {"attention_head_dim", head_dim},
        {"num_layers", layers},
        {"num_cross_attention_heads", cross_heads},
        {"cross_attention_head_dim", cross_head_dim},
        {"cross_attention_dim", width()},
        {"caption_channels", caption_channels},
        {"mlp_ratio", mlp_ratio},
        {"dropout", 0.0},
        {"attention_bias", attention_bias},
        {"sample_size", sample_size},
        {"patch_size", patch},
        {"norm_elementwise_affine", false},
        {"norm_eps", norm_eps},
        {"interpolation_scale", nullptr},
        {"guidance_embeds", guidance_embeds},
        {"guidance_embeds_scale", 0.1},
        {"qk_norm", "rms_norm_across_heads"},
        {"rope_max_seq_len", rope_max_seq_len},
    };
    return json.dump(2) + "\n";
}

}  // namespace sana
