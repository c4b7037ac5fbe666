#include "models/wan_vae/config.h"

#include <nlohmann/json.hpp>

namespace sana {

int64_t WanVaeConfig::temporal_factor() const {
    int64_t factor = 1;
    for (bool down : temporal_downsample) factor *= down ? 2 : 1;
    return factor;
}

WanVaeConfig WanVaeConfig::released() {
    WanVaeConfig c;
    c.latents_mean = {-0.7571, -0.7089, -0.9113, 0.1075,  -0.1745, 0.9653,  -0.1517, 1.5508,
                      0.4134,  -0.0715, 0.5517,  -0.3632, -0.1922, -0.9497, 0.2503,  -0.2921};
    c.latents_std = {2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
                     3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160};
    return c;
}

WanVaeConfig WanVaeConfig::from_json(const JsonConfig& json) {
    WanVaeConfig c = released();
    c.base = json.integer("base_dim", c.base, 1, 1 << 14);
    c.decoder_base = json.integer("decoder_base_dim", c.base, 1, 1 << 14);
    c.latent_channels = json.integer("z_dim", c.latent_channels, 1, 1 << 14);
    c.multipliers = json.integers("dim_mult", c.multipliers, 1, 256);
    c.residual_blocks = json.integer("num_res_blocks", c.residual_blocks, 1, 64);
    c.temporal_downsample = json.booleans("temperal_downsample", c.temporal_downsample);
    c.latents_mean = json.numbers("latents_mean", c.latents_mean);
    c.latents_std = json.numbers("latents_std", c.latents_std);
    json.require("is_residual", false, "the Wan 2.2 variant is not used by SANA-Video");
    if (json.has("attn_scales") && !json.numbers("attn_scales", {0}).empty()) {
        throw InputError(
            json.error("attn_scales", "is not empty; attention inside the levels is not supported"));
    }
    if (json.has("patch_size"))
        throw InputError(json.error("patch_size", "is set; only null (Wan 2.1) is supported"));
    if (json.integer("in_channels", 3, 1, 64) != 3 || json.integer("out_channels", 3, 1, 64) != 3) {
        throw InputError(json.error("in_channels", "and out_channels must be 3"));
    }
    if (c.multipliers.size() > 8) throw InputError(json.error("dim_mult", "has more than 8 levels"));
    if (c.temporal_downsample.size() + 1 != c.multipliers.size()) {
        throw InputError(
            json.error("temperal_downsample",
                       join("has ", c.temporal_downsample.size(), " entries for ", c.multipliers.size(),
                            " levels; one fewer than dim_mult is expected")));
    }
    // The decoder halves its width at every upsampling.
    for (size_t level = 1; level < c.multipliers.size(); ++level) {
        int64_t width = c.decoder_base * c.multipliers[level];
        if (width < 2) {
            throw InputError(json.error(
                "dim_mult", join("makes a decoder level of ", width, " channel, which cannot be halved")));
        }
    }
    size_t z = static_cast<size_t>(c.latent_channels);
    if (c.latents_mean.size() != z || c.latents_std.size() != z) {
        throw InputError(
            json.error("latents_mean", join("and latents_std must have z_dim = ", z, " entries")));
    }
    for (double value : c.latents_std) {
        if (!(value > 0)) throw InputError(json.error("latents_std", "holds a value that is not positive"));
    }
    return c;
}

std::string WanVaeConfig::to_json() const {
    nlohmann::ordered_json json{
        {"_class_name", "AutoencoderKLWan"},
        {"base_dim", base},
        {"decoder_base_dim",
         decoder_base == base ? nlohmann::ordered_json() : nlohmann::ordered_json(decoder_base)},
        {"z_dim", latent_channels},
        {"dim_mult", multipliers},
        {"num_res_blocks", residual_blocks},
        {"attn_scales", nlohmann::ordered_json::array()},
        {"temperal_downsample", temporal_downsample},
        {"dropout", 0.0},
        {"latents_mean", latents_mean},
        {"latents_std", latents_std},
        {"is_residual", false},
        {"in_channels", 3},
        {"out_channels", 3},
        {"patch_size", nullptr},
        {"scale_factor_temporal", temporal_factor()},
        {"scale_factor_spatial", spatial_factor()},
    };
    return json.dump(2) + "\n";
}

}  // namespace sana
