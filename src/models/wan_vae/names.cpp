// Checkpoint keys of the Wan 2.1 autoencoder. Our names are those of diffusers.
#include "models/wan_vae/wan_vae.h"

namespace sana {

CheckpointNames wan_vae_names(VaeParts parts) {
    CheckpointNames names;
    names.format = "diffusers";
    if (parts == VaeParts::decoder) names.ignored = {"encoder", "quant_conv"};
    if (parts == VaeParts::encoder) names.ignored = {"decoder", "post_quant_conv"};
    return names;
}

namespace {

void add_residual(std::vector<NameRule>& rules, const std::string& ours, const std::string& theirs) {
    rules.push_back({ours + ".norm1", theirs + ".residual.0"});
    rules.push_back({ours + ".conv1", theirs + ".residual.2"});
    rules.push_back({ours + ".norm2", theirs + ".residual.3"});
    rules.push_back({ours + ".conv2", theirs + ".residual.6"});
    rules.push_back({ours + ".conv_shortcut", theirs + ".shortcut"});
}

void add_ends(std::vector<NameRule>& rules, const std::string& half) {
    rules.push_back({half + ".conv_in", half + ".conv1"});
    add_residual(rules, half + ".mid_block.resnets.0", half + ".middle.0");
    rules.push_back({half + ".mid_block.attentions.0", half + ".middle.1"});
    add_residual(rules, half + ".mid_block.resnets.1", half + ".middle.2");
    rules.push_back({half + ".norm_out", half + ".head.0"});
    rules.push_back({half + ".conv_out", half + ".head.2"});
}

}  // namespace

// Source: Wan2.1 wan/modules/vae.py, diffusers convert_wan_to_diffusers.py. The original numbers all stages of a half in
// one list.
CheckpointNames wan_vae_official_names(const WanVaeConfig& config, VaeParts parts) {
    CheckpointNames names;
    names.format = "Wan2.1_VAE.pth";
    std::vector<NameRule>& rules = names.rules;
    rules = {{"quant_conv", "conv1"}, {"post_quant_conv", "conv2"}};
    add_ends(rules, "encoder");
    add_residual(rules, "encoder.down_blocks.*", "encoder.downsamples.*");
    rules.push_back({"encoder.down_blocks.*", "encoder.downsamples.*"});
    add_ends(rules, "decoder");
    int64_t at = 0;
    for (int64_t level = 0; level < config.levels(); ++level) {
        std::string block = join("decoder.up_blocks.", level);
        for (int64_t i = 0; i <= config.residual_blocks; ++i, ++at) {
            add_residual(rules, join(block, ".resnets.", i), join("decoder.upsamples.", at));
        }
        if (level + 1 < config.levels()) {
            rules.push_back({block + ".upsamplers.0", join("decoder.upsamples.", at++)});
        }
    }
    if (parts == VaeParts::decoder) names.ignored = {"encoder", "conv1"};
    if (parts == VaeParts::encoder) names.ignored = {"decoder", "conv2"};
    return names;
}

bool wan_vae_looks_official(const TensorMap& tensors) {
    return tensors.count("decoder.head.0.gamma") != 0 || tensors.count("encoder.head.0.gamma") != 0;
}

}  // namespace sana
