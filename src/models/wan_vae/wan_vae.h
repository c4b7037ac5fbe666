// Wan 2.1 video autoencoder (diffusers AutoencoderKLWan): causal in time, 1 + 4k frames, chunks of any size with exact
// caches. Letters: B samples, T H W frames and pixels, t h w latent frames and cells, Z latent channels.
#pragma once

#include "models/wan_vae/config.h"
#include "models/wan_vae/layers.h"
#include "nn/names.h"

namespace sana {

// A stage of the encoder: a residual block or a downsampling.
struct WanEncoderStage {
    std::optional<WanResidual> residual;
    std::optional<WanDownsample> down;
    void visit(auto& v) {
        if (residual) residual->visit(v);
        if (down) down->visit(v);
    }
};

struct WanEncoder {
    Conv3d conv_in, conv_out;
    std::vector<WanEncoderStage> down_blocks;
    WanMiddle mid_block;
    WanNorm norm_out;

    explicit WanEncoder(const WanVaeConfig& config);
    Tensor forward(const Tensor& video, CausalCache& cache) const;  // one chunk
    void visit(auto& v) {
        v("conv_in", conv_in);
        v("down_blocks", down_blocks);
        v("mid_block", mid_block);
        v("norm_out", norm_out);
        v("conv_out", conv_out);
    }
};

struct WanDecoderLevel {
    std::vector<WanResidual> resnets;
    std::vector<WanUpsample> upsamplers;  // one or none
    void visit(auto& v) {
        v("resnets", resnets);
        v("upsamplers", upsamplers);
    }
};

struct WanDecoder {
    Conv3d conv_in, conv_out;
    WanMiddle mid_block;
    std::vector<WanDecoderLevel> up_blocks;
    WanNorm norm_out;

    explicit WanDecoder(const WanVaeConfig& config);
    Tensor forward(const Tensor& latents,
                   CausalCache& cache) const;  // one chunk; the first has one latent frame
    void visit(auto& v) {
        v("conv_in", conv_in);
        v("mid_block", mid_block);
        v("up_blocks", up_blocks);
        v("norm_out", norm_out);
        v("conv_out", conv_out);
    }
};

class WanVae {
public:
    WanVae(const WanVaeConfig& config, VaeParts parts);

    // video [B,T,H,W,3] in -1..1, T = 1 + 4k, H and W multiples of spatial_factor() -> [B,t,h,w,Z].
    VaeMoments encode(const Tensor& video) const;
    // latents [B,t,h,w,Z] as the encoder gives them -> [B,T,H,W,3], clamped to -1..1.
    Tensor decode(const Tensor& latents, const VaeDecodeOptions& options = {}) const;
    // The next latent frames of a clip, any number of them -> the frames that they finish: 1 for the clip's first latent
    // frame, temporal_factor() for each later one. All pieces together equal decode() of the whole.
    Tensor decode_chunk(VaeDecodeStream& stream, const Tensor& latents) const;

    Tensor normalise(const Tensor& mean) const;       // (z - mean) / std a channel: what the transformer sees
    Tensor denormalise(const Tensor& latents) const;  // z * std + mean

    const WanVaeConfig& config() const { return config_; }
    DType dtype() const { return weight().dtype(); }
    Device device() const { return weight().device(); }
    VaeTiling tiling;  // off by default

    void visit(auto& v) {
        v("encoder", encoder);
        v("quant_conv", quant_conv);
        v("post_quant_conv", post_quant_conv);
        v("decoder", decoder);
    }

    std::optional<WanEncoder> encoder;
    std::optional<WanDecoder> decoder;
    std::optional<Linear> quant_conv, post_quant_conv;

private:
    const Tensor& weight() const;  // one of them, for what all share
    Tensor encode_moments(const Tensor& video) const;
    void check_latents(const Tensor& latents) const;
    // Not clamped: clamping comes after the blending of tiles.
    Tensor advance(CausalCache& cache, const Tensor& latents) const;
    int64_t chunk_frames(const Tensor& latents, int64_t wanted) const;

    WanVaeConfig config_;
};

// parts: the other half's keys are allowed to be there.
CheckpointNames wan_vae_names(VaeParts parts);
// The names of Wan2.1_VAE.pth.
CheckpointNames wan_vae_official_names(const WanVaeConfig& config, VaeParts parts);
bool wan_vae_looks_official(const TensorMap& tensors);

}  // namespace sana
