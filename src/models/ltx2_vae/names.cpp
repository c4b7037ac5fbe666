// Checkpoint keys of the LTX-2 autoencoder. Our names are those of diffusers.
#include "models/ltx2_vae/ltx2_vae.h"

namespace sana {

CheckpointNames ltx2_vae_names(VaeParts parts) {
    CheckpointNames names;
    names.format = "diffusers";
    if (parts == VaeParts::decoder) names.ignored = {"encoder"};
    if (parts == VaeParts::encoder) names.ignored = {"decoder"};
    return names;
}

namespace {

constexpr const char* kStatistics = "per_channel_statistics.mean-of-means";

}  // namespace

// Source: LTX-2 ltx-core video_vae, diffusers convert_ltx2_to_diffusers.py. The original numbers residual groups and
// resamplings of a half in one list.
CheckpointNames ltx2_vae_official_names(const Ltx2VaeConfig& config, VaeParts parts,
                                        const TensorMap& tensors) {
    CheckpointNames names;
    names.format = "Lightricks";
    if (tensors.count(std::string("vae.") + kStatistics) != 0) names.prefix = "vae.";
    names.rules = {{"latents_mean", kStatistics}, {"latents_std", "per_channel_statistics.std-of-means"}};
    size_t down = config.encoder_widths.size(), up = config.decoder_widths.size();
    for (size_t i = 0; i < down; ++i) {
        std::string block = join("encoder.down_blocks.", i);
        names.rules.push_back({block + ".resnets", join("encoder.down_blocks.", 2 * i, ".res_blocks")});
        names.rules.push_back({block + ".downsamplers.0", join("encoder.down_blocks.", 2 * i + 1)});
    }
    names.rules.push_back(
        {"encoder.mid_block.resnets", join("encoder.down_blocks.", 2 * down, ".res_blocks")});
    names.rules.push_back({"decoder.mid_block.resnets", "decoder.up_blocks.0.res_blocks"});
    for (size_t i = 0; i < up; ++i) {
        std::string block = join("decoder.up_blocks.", i);
        names.rules.push_back({block + ".upsamplers.0", join("decoder.up_blocks.", 2 * i + 1)});
        names.rules.push_back({block + ".resnets", join("decoder.up_blocks.", 2 * i + 2, ".res_blocks")});
    }
    // Further statistics, and the other models of a combined file.
    names.ignored = {"per_channel_statistics"};
    if (!names.prefix.empty()) {
        names.ignored.insert(names.ignored.end(),
                             {"model", "audio_vae", "vocoder", "text_embedding_projection"});
    }
    if (parts == VaeParts::decoder) names.ignored.push_back("encoder");
    if (parts == VaeParts::encoder) names.ignored.push_back("decoder");
    return names;
}

bool ltx2_vae_looks_official(const TensorMap& tensors) {
    return tensors.count(kStatistics) != 0 || tensors.count(std::string("vae.") + kStatistics) != 0;
}

}  // namespace sana
