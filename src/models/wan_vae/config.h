// Wan 2.1 video autoencoder: the fields of vae/config.json with the defaults of diffusers' AutoencoderKLWan.
#pragma once

#include <string>
#include <vector>

#include "models/json_config.h"

namespace sana {

struct WanVaeConfig {
    int64_t base = 96;                                            // base_dim
    int64_t decoder_base = 96;                                    // decoder_base_dim, null: base_dim
    int64_t latent_channels = 16;                                 // z_dim
    std::vector<int64_t> multipliers = {1, 2, 4, 4};              // dim_mult
    int64_t residual_blocks = 2;                                  // num_res_blocks, one more in the decoder
    std::vector<bool> temporal_downsample = {false, true, true};  // temperal_downsample
    std::vector<double> latents_mean, latents_std;                // [Z]

    int64_t levels() const { return static_cast<int64_t>(multipliers.size()); }
    int64_t spatial_factor() const { return int64_t{1} << (levels() - 1); }
    int64_t temporal_factor() const;

    static WanVaeConfig released();
    static WanVaeConfig from_json(const JsonConfig& json);
    std::string to_json() const;
};

}  // namespace sana
