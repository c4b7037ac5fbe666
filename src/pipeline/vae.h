// The autoencoder of a model folder, whichever it is.
#pragma once

#include <string>
#include <variant>

#include "models/ltx2_vae/ltx2_vae.h"
#include "models/wan_vae/wan_vae.h"

namespace sana {

using VaeConfig = std::variant<WanVaeConfig, Ltx2VaeConfig>;

// By "_class_name"; InputError for an autoencoder that is not supported.
VaeConfig vae_config_from_json(const JsonConfig& json);

struct VaeShape {
    int64_t latent_channels, spatial_factor, temporal_factor;
};
VaeShape shape_of(const VaeConfig& config);
std::string to_json(const VaeConfig& config);
std::string_view class_name(const VaeConfig& config);

class Vae {
public:
    Vae(const VaeConfig& config, VaeParts parts);

    std::vector<NamedParameter> parameters();
    // The table of the weights' own format; without weights that of diffusers.
    CheckpointNames names(const TensorMap& weights = {}) const;
    VaeMoments encode(const Tensor& video) const;
    Tensor decode(const Tensor& latents, const VaeDecodeOptions& options = {}) const;
    Tensor normalise(const Tensor& mean) const;
    Tensor denormalise(const Tensor& latents) const;
    DType dtype() const;
    Device device() const;
    void set_tiling(VaeTiling tiling);

private:
    std::variant<WanVae, Ltx2Vae> vae_;
    VaeParts parts_;
};

}  // namespace sana
