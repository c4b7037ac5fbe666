#include "models/ltx2_vae/config.h"

#include <nlohmann/json.hpp>

namespace sana {

std::array<int64_t, 3> resample_stride(const std::string& kind) {
    if (kind == "spatial") return {1, 2, 2};
    if (kind == "temporal") return {2, 1, 1};
    return {2, 2, 2};
}

int64_t Ltx2VaeConfig::spatial_factor() const {
    int64_t factor = patch;
    for (const std::string& kind : downsample) factor *= resample_stride(kind)[1];
    return factor;
}

int64_t Ltx2VaeConfig::temporal_factor() const {
    int64_t factor = 1;
    for (const std::string& kind : downsample) factor *= resample_stride(kind)[0];
    return factor;
}

Ltx2VaeConfig Ltx2VaeConfig::released() {
    Ltx2VaeConfig c;
    c.decoder_causal = false;
    return c;
}

namespace {

bool reflect(const JsonConfig& json, const char* key, bool fallback) {
    std::string mode = json.text(key, fallback ? "reflect" : "zeros");
    if (mode != "zeros" && mode != "reflect")
        throw InputError(json.error(key, "is " + mode + "; zeros or reflect"));
    return mode == "reflect";
}

void check_kinds(const JsonConfig& json, const char* key, const std::vector<std::string>& kinds,
                 size_t levels) {
    if (kinds.size() != levels)
        throw InputError(json.error(key, join("has ", kinds.size(), " entries for ", levels, " levels")));
    for (const std::string& kind : kinds) {
        if (kind != "spatial" && kind != "temporal" && kind != "spatiotemporal") {
            throw InputError(json.error(key, "holds " + kind + "; spatial, temporal or spatiotemporal"));
        }
    }
}

void check_all(const JsonConfig& json, const char* key, bool wanted) {
    for (bool value : json.booleans(key, {wanted})) {
        if (value != wanted)
            throw InputError(json.error(
                key, join("must be ", wanted, " throughout: other LTX versions are not supported")));
    }
}

// The decoder's widths from its input on, as its levels leave them.
void check_widths(const JsonConfig& json, const Ltx2VaeConfig& c) {
    int64_t channels = c.latent_channels;
    for (size_t i = 0; i < c.encoder_widths.size(); ++i) {
        auto s = resample_stride(c.downsample[i]);
        int64_t volume = s[0] * s[1] * s[2], out = c.encoder_widths[i];
        if (out % volume != 0 || channels * volume % out != 0) {
            throw InputError(
                json.error("block_out_channels", join("level ", i, ": ", channels, " -> ", out,
                                                      " channels do not fit a resampling of ", volume)));
        }
        channels = out;
    }
    size_t levels = c.decoder_widths.size();
    channels = c.decoder_widths.back();
    for (size_t i = 0; i < levels; ++i) {
        int64_t factor = c.upsample_factor[levels - 1 - i], out = c.decoder_widths[levels - 1 - i] / factor;
        auto s = resample_stride(c.upsample[i]);
        if (channels % factor != 0 || channels / factor != out || s[0] * s[1] * s[2] % factor != 0 ||
            channels % (s[0] * s[1] * s[2]) != 0) {
            throw InputError(json.error("decoder_block_out_channels",
                                        join("level ", i, ": ", channels, " -> ", out,
                                             " channels do not fit an upsampling by a factor of ", factor)));
        }
        channels = out;
    }
}

}  // namespace

Ltx2VaeConfig Ltx2VaeConfig::from_json(const JsonConfig& json) {
    Ltx2VaeConfig c;
    c.latent_channels = json.integer("latent_channels", c.latent_channels, 1, 1 << 14);
    c.encoder_widths = json.integers("block_out_channels", c.encoder_widths, 1, 1 << 16);
    c.decoder_widths = json.integers("decoder_block_out_channels", c.decoder_widths, 1, 1 << 16);
    size_t down = c.encoder_widths.size(), up = c.decoder_widths.size();
    if (down > 8 || up > 8) throw InputError(json.error("block_out_channels", "has more than 8 levels"));
    c.encoder_layers = json.integers("layers_per_block", c.encoder_layers, 1, 64, static_cast<int>(down) + 1);
    c.decoder_layers =
        json.integers("decoder_layers_per_block", c.decoder_layers, 1, 64, static_cast<int>(up) + 1);
    c.downsample = json.texts("downsample_type", c.downsample);
    c.upsample = json.texts("upsample_type", std::vector<std::string>(up, "spatiotemporal"));
    c.upsample_residual = json.booleans("upsample_residual", std::vector<bool>(up, true));
    c.upsample_factor =
        json.integers("upsample_factor", std::vector<int64_t>(up, 2), 1, 8, static_cast<int>(up));
    c.patch = json.integer("patch_size", c.patch, 1, 16);
    c.encoder_causal = json.boolean("encoder_causal", c.encoder_causal);
    c.decoder_causal = json.boolean("decoder_causal", c.decoder_causal);
    c.encoder_reflect = reflect(json, "encoder_spatial_padding_mode", c.encoder_reflect);
    c.decoder_reflect = reflect(json, "decoder_spatial_padding_mode", c.decoder_reflect);
    check_kinds(json, "downsample_type", c.downsample, down);
    check_kinds(json, "upsample_type", c.upsample, up);
    for (const std::string& kind : json.texts("down_block_types", {"LTX2VideoDownBlock3D"})) {
        if (kind != "LTX2VideoDownBlock3D") {
            throw InputError(
                json.error("down_block_types", "holds " + kind + "; only LTX2VideoDownBlock3D is supported"));
        }
    }
    check_all(json, "spatio_temporal_scaling", true);
    check_all(json, "decoder_spatio_temporal_scaling", true);
    check_all(json, "decoder_inject_noise", false);
    json.require("timestep_conditioning", false, "the decoder of LTX-2 2.0 has no timestep");
    if (json.integer("patch_size_t", 1, 1, 64) != 1)
        throw InputError(json.error("patch_size_t", "must be 1"));
    if (json.integer("in_channels", 3, 1, 64) != 3 || json.integer("out_channels", 3, 1, 64) != 3) {
        throw InputError(json.error("in_channels", "and out_channels must be 3"));
    }
    if (c.upsample_residual.size() != up)
        throw InputError(json.error("upsample_residual", "has not one entry a level"));
    check_widths(json, c);
    int64_t spatial = c.patch, temporal = 1;
    for (const std::string& kind : c.upsample) {
        spatial *= resample_stride(kind)[1];
        temporal *= resample_stride(kind)[0];
    }
    if (spatial != c.spatial_factor() || temporal != c.temporal_factor()) {
        throw InputError(json.error("upsample_type", "does not undo downsample_type"));
    }
    return c;
}

std::string Ltx2VaeConfig::to_json() const {
    std::vector<bool> yes(encoder_widths.size(), true), up_yes(decoder_widths.size(), true);
    std::vector<bool> no(decoder_layers.size(), false);
    nlohmann::ordered_json json{
        {"_class_name", "AutoencoderKLLTX2Video"},
        {"in_channels", 3},
        {"out_channels", 3},
        {"latent_channels", latent_channels},
        {"block_out_channels", encoder_widths},
        {"down_block_types", std::vector<std::string>(encoder_widths.size(), "LTX2VideoDownBlock3D")},
        {"decoder_block_out_channels", decoder_widths},
        {"layers_per_block", encoder_layers},
        {"decoder_layers_per_block", decoder_layers},
        {"spatio_temporal_scaling", yes},
        {"decoder_spatio_temporal_scaling", up_yes},
        {"decoder_inject_noise", no},
        {"downsample_type", downsample},
        {"upsample_type", upsample},
        {"upsample_residual", upsample_residual},
        {"upsample_factor", upsample_factor},
        {"timestep_conditioning", false},
        {"patch_size", patch},
        {"patch_size_t", 1},
        {"resnet_norm_eps", 1e-6},
        {"scaling_factor", 1.0},
        {"encoder_causal", encoder_causal},
        {"decoder_causal", decoder_causal},
        {"encoder_spatial_padding_mode", encoder_reflect ? "reflect" : "zeros"},
        {"decoder_spatial_padding_mode", decoder_reflect ? "reflect" : "zeros"},
        {"spatial_compression_ratio", spatial_factor()},
        {"temporal_compression_ratio", temporal_factor()},
    };
    return json.dump(2) + "\n";
}

}  // namespace sana
