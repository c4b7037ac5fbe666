// SANA-Video's diffusion transformer: the fields of transformer/config.json with the defaults of diffusers'
// SanaVideoTransformer3DModel (which are not the released values).
#pragma once

#include <array>
#include <string>

#include "models/json_config.h"

namespace sana {

struct DiTConfig {
    int64_t in_channels = 16;
    int64_t out_channels = 16;
    int64_t heads = 20;            // num_attention_heads
    int64_t head_dim = 112;        // attention_head_dim
    int64_t layers = 20;           // num_layers
    int64_t cross_heads = 20;      // num_cross_attention_heads
    int64_t cross_head_dim = 112;  // cross_attention_head_dim
    int64_t caption_channels = 2304;
    double mlp_ratio = 2.5;
    bool attention_bias = false;
    int64_t sample_size = 30;  // 30: 480p bins, 22: 720p bins
    std::array<int64_t, 3> patch = {1, 2, 2};
    double norm_eps = 1e-6;
    bool guidance_embeds = false;
    int64_t rope_max_seq_len = 1024;  // positions an axis

    // Not in config.json: where the diffusers port and the original code differ.
    double attention_eps = 1e-15;  // original: 1e-8
    double cross_norm_eps = 1e-5;  // original: 1e-6

    int64_t width() const { return heads * head_dim; }                                                // C
    int64_t inner() const { return static_cast<int64_t>(mlp_ratio * static_cast<double>(width())); }  // F
    int64_t patch_volume() const { return patch[0] * patch[1] * patch[2]; }

    static DiTConfig from_json(const JsonConfig& json);
    std::string to_json() const;
};

}  // namespace sana
