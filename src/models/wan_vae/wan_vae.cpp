#include "models/wan_vae/wan_vae.h"

#include "core/scope.h"
#include "ops/pointwise.h"

namespace sana {

WanEncoder::WanEncoder(const WanVaeConfig& config)
    : mid_block(config.base * config.multipliers.back()),
      norm_out(config.base * config.multipliers.back(), 3) {
    int64_t channels = config.base;
    conv_in = wan_conv(3, channels);
    for (size_t level = 0; level < config.multipliers.size(); ++level) {
        int64_t out = config.base * config.multipliers[level];
        for (int64_t i = 0; i < config.residual_blocks; ++i) {
            down_blocks.push_back({WanResidual(channels, out), {}});
            channels = out;
        }
        if (level + 1 < config.multipliers.size()) {
            down_blocks.push_back({{}, WanDownsample(out, config.temporal_downsample[level])});
        }
    }
    conv_out = wan_conv(channels, 2 * config.latent_channels);
}

Tensor WanEncoder::forward(const Tensor& video, CausalCache& cache) const {
    cache.next = 0;
    Tensor x = causal_conv(conv_in, video, cache);
    for (const WanEncoderStage& stage : down_blocks) {
        x = stage.residual ? stage.residual->forward(x, cache) : stage.down->forward(x, cache);
    }
    x = mid_block.forward(x, cache);
    x = causal_conv(conv_out, norm_out.forward(x, Activation::silu), cache);
    cache.started = true;
    return x;
}

WanDecoder::WanDecoder(const WanVaeConfig& config)
    : mid_block(config.decoder_base * config.multipliers.back()),
      norm_out(config.decoder_base * config.multipliers.front(), 3) {
    size_t levels = config.multipliers.size();
    int64_t channels = config.decoder_base * config.multipliers.back();
    conv_in = wan_conv(config.latent_channels, channels);
    for (size_t level = 0; level < levels; ++level) {
        int64_t out = config.decoder_base * config.multipliers[levels - 1 - level];
        WanDecoderLevel block;
        for (int64_t i = 0; i < config.residual_blocks + 1; ++i) {
            block.resnets.emplace_back(channels, out);
            channels = out;
        }
        if (level + 1 < levels) {
            block.upsamplers.emplace_back(out, config.temporal_downsample[levels - 2 - level]);
            channels = out / 2;
        }
        up_blocks.push_back(std::move(block));
    }
    conv_out = wan_conv(channels, 3);
}

Tensor WanDecoder::forward(const Tensor& latents, CausalCache& cache) const {
    cache.next = 0;
    Tensor x = causal_conv(conv_in, latents, cache);
    x = mid_block.forward(x, cache);
    for (size_t level = 0; level < up_blocks.size(); ++level) {
        Scope scope("up_blocks", static_cast<int64_t>(level));
        for (const WanResidual& block : up_blocks[level].resnets) x = block.forward(x, cache);
        for (const WanUpsample& block : up_blocks[level].upsamplers) x = block.forward(x, cache);
    }
    x = causal_conv(conv_out, norm_out.forward(x, Activation::silu), cache);
    cache.started = true;
    return x;
}

WanVae::WanVae(const WanVaeConfig& config, VaeParts parts) : config_(config) {
    int64_t z = config.latent_channels;
    if (parts != VaeParts::decoder) {
        encoder.emplace(config);
        quant_conv = Linear::from_conv(2 * z, 2 * z, true, 3);
    }
    if (parts != VaeParts::encoder) {
        decoder.emplace(config);
        post_quant_conv = Linear::from_conv(z, z, true, 3);
    }
}

DType WanVae::dtype() const { return (quant_conv ? *quant_conv : *post_quant_conv).weight.value.dtype(); }

Tensor WanVae::encode_moments(const Tensor& video) const {
    CausalCache cache;
    std::vector<Tensor> parts;
    for_each_chunk(video.dim(1), config_.temporal_factor(), [&](int64_t start, int64_t n) {
        parts.push_back(encoder->forward(slice(video, 1, start, n), cache));
    });
    return quant_conv->forward(concat(parts, 1));
}

VaeMoments WanVae::encode(const Tensor& video) const {
    Scope scope("vae");
    check(encoder.has_value(), "this autoencoder was loaded without its encoder");
    int64_t s = config_.spatial_factor(), t = config_.temporal_factor();
    check_input(video.rank() == 5 && video.cols() == 3 && video.dim(1) % t == 1 % t &&
                    video.dim(2) % s == 0 && video.dim(3) % s == 0 && video.numel() > 0,
                "video ", video, " cannot be encoded: [B,T,H,W,3] with 1 + ", t,
                "k frames and sides that are multiples of ", s, " is expected");
    Tensor moments = tiling.active(video.dim(2), video.dim(3))
                         ? blend_tiles(video, tiling.tile, tiling.stride, -s,
                                       [&](const Tensor& x) { return encode_moments(x); })
                         : encode_moments(video);
    int64_t z = config_.latent_channels;
    return {moments.cols_slice(0, z).contiguous(), clamp(moments.cols_slice(z, z), -30, 20)};
}

Tensor WanVae::decode_clip(const Tensor& latents, const VaeDecodeOptions& options) const {
    Tensor z = post_quant_conv->forward(latents);
    // A chunk's largest activation is one of decoder_base channels at full resolution: keep it near 400 MB.
    int64_t s = config_.spatial_factor(), frame = latents.dim(0) * latents.dim(2) * latents.dim(3) * s * s *
                                                  config_.temporal_factor() * config_.decoder_base *
                                                  size_of(z.dtype());
    int64_t chunk =
        options.chunk > 0 ? options.chunk : std::clamp<int64_t>((int64_t{400} << 20) / frame, 1, 8);
    CausalCache cache;
    std::vector<Tensor> parts;
    for_each_chunk(z.dim(1), chunk, [&](int64_t start, int64_t n) {
        Tensor frames = clamp(decoder->forward(slice(z, 1, start, n), cache), -1, 1);
        if (options.sink) {
            options.sink(frames);
        } else {
            parts.push_back(frames);
        }
        if (options.progress) options.progress(start + n, z.dim(1));
    });
    return options.sink ? Tensor() : concat(parts, 1);
}

Tensor WanVae::decode(const Tensor& latents, const VaeDecodeOptions& options) const {
    Scope scope("vae");
    check(decoder.has_value(), "this autoencoder was loaded without its decoder");
    check_input(latents.rank() == 5 && latents.cols() == config_.latent_channels && latents.numel() > 0,
                "latents ", latents, " cannot be decoded: [B,t,h,w,", config_.latent_channels,
                "] is expected");
    int64_t s = config_.spatial_factor();
    if (!tiling.active(latents.dim(2) * s, latents.dim(3) * s)) return decode_clip(latents, options);
    Tensor video =
        clamp(blend_tiles(latents, tiling.tile / s, tiling.stride / s, s,
                          [&](const Tensor& x) { return decode_clip(x, {.chunk = options.chunk}); }),
              -1, 1);
    if (!options.sink) return video;
    options.sink(video);
    return {};
}

namespace {

Tensor channel_vector(const std::vector<double>& values, DType dtype, bool inverse) {
    std::vector<double> out = values;
    for (double& value : out) value = inverse ? 1 / value : value;
    return from_vector(out, {static_cast<int64_t>(out.size())}).to(dtype);
}

}  // namespace

Tensor WanVae::normalise(const Tensor& mean) const {
    std::vector<double> shift = config_.latents_mean;
    for (size_t i = 0; i < shift.size(); ++i) shift[i] = -shift[i] / config_.latents_std[i];
    return affine(mean, channel_vector(config_.latents_std, mean.dtype(), true),
                  channel_vector(shift, mean.dtype(), false));
}

Tensor WanVae::denormalise(const Tensor& latents) const {
    return affine(latents, channel_vector(config_.latents_std, latents.dtype(), false),
                  channel_vector(config_.latents_mean, latents.dtype(), false));
}

CheckpointNames wan_vae_names(VaeParts parts) {
    CheckpointNames names;
    names.format = "diffusers";
    if (parts == VaeParts::decoder) names.ignored = {"encoder", "quant_conv"};
    if (parts == VaeParts::encoder) names.ignored = {"decoder", "post_quant_conv"};
    return names;
}

}  // namespace sana
