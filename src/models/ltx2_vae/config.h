// LTX-2 video autoencoder: the fields of vae/config.json with the defaults of diffusers' AutoencoderKLLTX2Video.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "models/json_config.h"

namespace sana {

struct Ltx2VaeConfig {
    int64_t latent_channels = 128;
    std::vector<int64_t> encoder_widths = {256, 512, 1024, 2048};  // block_out_channels
    std::vector<int64_t> decoder_widths = {256, 512, 1024};        // decoder_block_out_channels
    std::vector<int64_t> encoder_layers = {4, 6, 6, 2, 2};         // layers_per_block; the last: the middle
    std::vector<int64_t> decoder_layers = {5, 5, 5, 5};  // decoder_layers_per_block; the last: the middle
    std::vector<std::string> downsample = {"spatial", "temporal", "spatiotemporal", "spatiotemporal"};
    std::vector<std::string> upsample = {"spatiotemporal", "spatiotemporal", "spatiotemporal"};
    std::vector<bool> upsample_residual = {true, true, true};
    std::vector<int64_t> upsample_factor = {2, 2, 2};
    int64_t patch = 4;
    bool encoder_causal = true, decoder_causal = true;
    bool encoder_reflect = false, decoder_reflect = true;  // spatial padding: reflect or zeros

    int64_t spatial_factor() const;
    int64_t temporal_factor() const;

    static Ltx2VaeConfig released();  // as LTX-2 2.0 has it: a decoder that is not causal
    static Ltx2VaeConfig from_json(const JsonConfig& json);
    std::string to_json() const;
};

// Frames, rows and columns that a kind of resampling divides or multiplies by.
std::array<int64_t, 3> resample_stride(const std::string& kind);

}  // namespace sana
