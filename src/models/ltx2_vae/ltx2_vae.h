// LTX-2 video autoencoder (diffusers AutoencoderKLLTX2Video): 1 + 8k frames, the encoder causal, the decoder causal or
// not by its config. Letters as in wan_vae.h.
#pragma once

#include <optional>

#include "models/ltx2_vae/config.h"
#include "models/ltx2_vae/layers.h"
#include "nn/names.h"

namespace sana {

struct Ltx2EncoderLevel {
    std::vector<Ltx2Residual> resnets;
    std::vector<Ltx2Downsample> downsamplers;  // one
    void visit(auto& v) {
        v("resnets", resnets);
        v("downsamplers", downsamplers);
    }
};

struct Ltx2DecoderLevel {
    std::vector<Ltx2Upsample> upsamplers;  // one
    std::vector<Ltx2Residual> resnets;
    void visit(auto& v) {
        v("upsamplers", upsamplers);
        v("resnets", resnets);
    }
};

struct Ltx2Middle {
    std::vector<Ltx2Residual> resnets;
    void visit(auto& v) { v("resnets", resnets); }
};

struct Ltx2Encoder {
    Ltx2Conv conv_in, conv_out;
    std::vector<Ltx2EncoderLevel> down_blocks;
    Ltx2Middle mid_block;
    int64_t patch;

    explicit Ltx2Encoder(const Ltx2VaeConfig& config);
    // One chunk: [B,t,h,w,Z+1]. No cache: the whole clip, not causal.
    Tensor forward(const Tensor& video, CausalCache* cache) const;
    void visit(auto& v) {
        v("conv_in", conv_in);
        v("down_blocks", down_blocks);
        v("mid_block", mid_block);
        v("conv_out", conv_out);
    }
};

struct Ltx2Decoder {
    Ltx2Conv conv_in, conv_out;
    Ltx2Middle mid_block;
    std::vector<Ltx2DecoderLevel> up_blocks;
    int64_t patch;

    explicit Ltx2Decoder(const Ltx2VaeConfig& config);
    Tensor forward(const Tensor& latents, CausalCache* cache) const;  // null: the whole clip, not causal
    void visit(auto& v) {
        v("conv_in", conv_in);
        v("mid_block", mid_block);
        v("up_blocks", up_blocks);
        v("conv_out", conv_out);
    }
};

class Ltx2Vae {
public:
    Ltx2Vae(const Ltx2VaeConfig& config, VaeParts parts);

    // video [B,T,H,W,3] in -1..1, T = 1 + 8k. All channels of logvar are equal.
    VaeMoments encode(const Tensor& video) const;
    // latents [B,t,h,w,Z] -> [B,T,H,W,3], not clamped.
    Tensor decode(const Tensor& latents, const VaeDecodeOptions& options = {}) const;
    // The next latent frames of a clip, any number of them -> the frames that they finish: 1 for the clip's first latent
    // frame, temporal_factor() for each later one. All pieces together equal decode() of the whole. InputError when the
    // decoder is not causal: then every frame depends on all latent frames.
    Tensor decode_chunk(VaeDecodeStream& stream, const Tensor& latents) const;

    Tensor normalise(const Tensor& mean) const;
    Tensor denormalise(const Tensor& latents) const;

    const Ltx2VaeConfig& config() const { return config_; }
    DType dtype() const { return weight().dtype(); }
    Device device() const { return weight().device(); }
    VaeTiling tiling;  // off by default

    void visit(auto& v) {
        v("latents_mean", latents_mean);
        v("latents_std", latents_std);
        v("encoder", encoder);
        v("decoder", decoder);
    }

    Parameter latents_mean, latents_std;  // [Z] fp32
    std::optional<Ltx2Encoder> encoder;
    std::optional<Ltx2Decoder> decoder;

private:
    const Tensor& weight() const { return (encoder ? encoder->conv_in : decoder->conv_in).conv.weight.value; }
    Tensor encode_moments(const Tensor& video) const;
    void check_latents(const Tensor& latents) const;
    // The whole clip in chunks as far as the decoder is causal.
    void decode_clip(const Tensor& latents, int64_t chunk,
                     const std::function<void(const Tensor& frames, int64_t done)>& emit) const;

    Ltx2VaeConfig config_;
};

// parts: the other half's keys are allowed to be there.
CheckpointNames ltx2_vae_names(VaeParts parts);
// The names of Lightricks' own files, in which this autoencoder stands alone or beside the other models under "vae.".
CheckpointNames ltx2_vae_official_names(const Ltx2VaeConfig& config, VaeParts parts,
                                        const TensorMap& tensors);
bool ltx2_vae_looks_official(const TensorMap& tensors);

}  // namespace sana
