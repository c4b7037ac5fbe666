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

const Tensor& WanVae::weight() const { return (quant_conv ? *quant_conv : *post_quant_conv).weight.value; }

Tensor WanVae::encode_moments(const Tensor& video) const {
    int64_t factor = config_.temporal_factor();
    int64_t unit_bytes = video.numel() / video.dim(1) / 3 * factor * config_.base * size_of(video.dtype());
    std::vector<Tensor> parts;
    run_causal(
        video, factor, chunk_for(1 + (video.dim(1) - 1) / factor, unit_bytes, video.device()),
        [&](CausalCache& cache, const Tensor& x) { return encoder->forward(x, cache); },
        [&](const Tensor& moments, int64_t) { parts.push_back(moments); });
    return quant_conv->forward(concat(parts, 1));
}

VaeMoments WanVae::encode(const Tensor& video) const {
    Scope scope("vae");
    check(encoder.has_value(), "this autoencoder was loaded without its encoder");
    int64_t s = config_.spatial_factor(), t = config_.temporal_factor();
    check_input(video.rank() == 5 && video.cols() == 3 && valid_frames(video.dim(1), t) &&
                    video.dim(2) % s == 0 && video.dim(3) % s == 0 && video.numel() > 0,
                "video ", video, " cannot be encoded: [B,T,H,W,3] with 1 + ", t,
                "k frames and sides that are multiples of ", s, " is expected");
    auto moments_of = [&](const Tensor& x) { return encode_moments(x); };
    Tensor moments = tiling.active(video.dim(2), video.dim(3))
                         ? blend_tiles(video, encode_grid(tiling, s), moments_of)
                         : moments_of(video);
    int64_t z = config_.latent_channels;
    return {moments.cols_slice(0, z).contiguous(), clamp(moments.cols_slice(z, z), -30, 20)};
}

void WanVae::check_latents(const Tensor& latents) const {
    check(decoder.has_value(), "this autoencoder was loaded without its decoder");
    check_input(latents.rank() == 5 && latents.cols() == config_.latent_channels && latents.numel() > 0,
                "latents ", latents, " cannot be decoded: [B,t,h,w,", config_.latent_channels,
                "] is expected");
}

int64_t WanVae::chunk_frames(const Tensor& latents, int64_t wanted) const {
    if (wanted > 0) return wanted;
    int64_t s =
        config_.spatial_factor();  // the largest activation has decoder_base channels at full resolution
    int64_t frame = latents.dim(0) * latents.dim(2) * latents.dim(3) * s * s * config_.temporal_factor() *
                    config_.decoder_base * size_of(latents.dtype());
    return chunk_for(latents.dim(1), frame, latents.device());
}

Tensor WanVae::advance(CausalCache& cache, const Tensor& latents) const {
    return decoder->forward(post_quant_conv->forward(latents), cache);
}

Tensor WanVae::decode_chunk(VaeDecodeStream& stream, const Tensor& latents) const {
    Scope scope("vae");
    check_latents(latents);
    // The temporal upsampling treats the first latent frame differently: it goes alone.
    int64_t first = stream.cache.started ? 0 : 1, frames = latents.dim(1);
    std::vector<Tensor> parts;
    if (first > 0) parts.push_back(advance(stream.cache, slice(latents, 1, 0, 1)));
    if (frames > first) parts.push_back(advance(stream.cache, slice(latents, 1, first, frames - first)));
    return clamp(parts.size() == 1 ? parts[0] : concat(parts, 1), -1, 1);
}

Tensor WanVae::decode(const Tensor& latents, const VaeDecodeOptions& options) const {
    Scope scope("vae");
    check_latents(latents);
    int64_t s = config_.spatial_factor();
    std::vector<Tensor> parts;
    auto next = [&](CausalCache& cache, const Tensor& x) { return advance(cache, x); };
    auto emit = [&](const Tensor& video) {
        if (options.sink) {
            options.sink(video);
        } else {
            parts.push_back(video);
        }
    };
    if (tiling.active(latents.dim(2) * s, latents.dim(3) * s)) {
        auto decode_tile = [&](const Tensor& x) {
            std::vector<Tensor> pieces;
            run_causal(x, 1, chunk_frames(x, options.chunk), next,
                       [&](const Tensor& video, int64_t) { pieces.push_back(video); });
            return concat(pieces, 1);
        };
        emit(clamp(blend_tiles(latents, decode_grid(tiling, s), decode_tile, options.progress), -1, 1));
    } else {
        run_causal(latents, 1, chunk_frames(latents, options.chunk), next,
                   [&](const Tensor& video, int64_t done) {
                       emit(clamp(video, -1, 1));
                       if (options.progress) options.progress(done, latents.dim(1));
                   });
    }
    return options.sink ? Tensor() : concat(parts, 1);
}

namespace {

// A factor or summand a channel, of the dtype and on the device of what it meets.
Tensor channel_vector(const std::vector<double>& values, const Tensor& meets) {
    return from_vector(values, {static_cast<int64_t>(values.size())}).to(meets.dtype()).to(meets.device());
}

}  // namespace

Tensor WanVae::normalise(const Tensor& mean) const {
    std::vector<double> scale = config_.latents_std, shift = config_.latents_mean;
    for (size_t i = 0; i < shift.size(); ++i) {
        shift[i] = -shift[i] / scale[i];
        scale[i] = 1 / scale[i];
    }
    return affine(mean, channel_vector(scale, mean), channel_vector(shift, mean));
}

Tensor WanVae::denormalise(const Tensor& latents) const {
    return affine(latents, channel_vector(config_.latents_std, latents),
                  channel_vector(config_.latents_mean, latents));
}

}  // namespace sana
