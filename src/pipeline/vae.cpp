#include "pipeline/vae.h"

namespace sana {

VaeConfig vae_config_from_json(const JsonConfig& json) {
    std::string name = json.text("_class_name", "AutoencoderKLWan");
    if (name == "AutoencoderKLWan") return WanVaeConfig::from_json(json);
    if (name == "AutoencoderKLLTX2Video") return Ltx2VaeConfig::from_json(json);
    throw InputError(json.error(
        "_class_name", "is " + name + "; AutoencoderKLWan and AutoencoderKLLTX2Video are supported"));
}

VaeShape shape_of(const VaeConfig& config) {
    return std::visit(
        [](const auto& c) {
            return VaeShape{c.latent_channels, c.spatial_factor(), c.temporal_factor()};
        },
        config);
}

std::string to_json(const VaeConfig& config) {
    return std::visit([](const auto& c) { return c.to_json(); }, config);
}

std::string_view class_name(const VaeConfig& config) {
    return std::holds_alternative<WanVaeConfig>(config) ? "AutoencoderKLWan" : "AutoencoderKLLTX2Video";
}

namespace {

std::variant<WanVae, Ltx2Vae> build(const VaeConfig& config, VaeParts parts) {
    if (const auto* wan = std::get_if<WanVaeConfig>(&config)) return WanVae(*wan, parts);
    return Ltx2Vae(std::get<Ltx2VaeConfig>(config), parts);
}

}  // namespace

Vae::Vae(const VaeConfig& config, VaeParts parts) : vae_(build(config, parts)), parts_(parts) {}

std::vector<NamedParameter> Vae::parameters() {
    return std::visit([](auto& vae) { return sana::parameters(vae); }, vae_);
}

CheckpointNames Vae::names(const TensorMap& weights) const {
    if (const auto* wan = std::get_if<WanVae>(&vae_)) {
        return wan_vae_looks_official(weights) ? wan_vae_official_names(wan->config(), parts_)
                                               : wan_vae_names(parts_);
    }
    return ltx2_vae_looks_official(weights)
               ? ltx2_vae_official_names(std::get<Ltx2Vae>(vae_).config(), parts_, weights)
               : ltx2_vae_names(parts_);
}

VaeMoments Vae::encode(const Tensor& video) const {
    return std::visit([&](const auto& vae) { return vae.encode(video); }, vae_);
}

Tensor Vae::decode(const Tensor& latents, const VaeDecodeOptions& options) const {
    return std::visit([&](const auto& vae) { return vae.decode(latents, options); }, vae_);
}

Tensor Vae::normalise(const Tensor& mean) const {
    return std::visit([&](const auto& vae) { return vae.normalise(mean); }, vae_);
}

Tensor Vae::denormalise(const Tensor& latents) const {
    return std::visit([&](const auto& vae) { return vae.denormalise(latents); }, vae_);
}

DType Vae::dtype() const {
    return std::visit([](const auto& vae) { return vae.dtype(); }, vae_);
}

Device Vae::device() const {
    return std::visit([](const auto& vae) { return vae.device(); }, vae_);
}

void Vae::set_tiling(VaeTiling tiling) {
    std::visit([&](auto& vae) { vae.tiling = tiling; }, vae_);
}

}  // namespace sana
