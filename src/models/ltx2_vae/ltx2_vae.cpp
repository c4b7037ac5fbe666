#include "models/ltx2_vae/ltx2_vae.h"

#include "core/scope.h"
#include "ops/depth_to_space.h"
#include "ops/pointwise.h"

namespace sana {

namespace {

std::vector<Ltx2Residual> residuals(int64_t n, int64_t channels, bool reflect) {
    std::vector<Ltx2Residual> blocks;
    for (int64_t i = 0; i < n; ++i) blocks.emplace_back(channels, reflect);
    return blocks;
}

// Channel c*16 + q*4 + p for row p and column q of a cell: the column offset is the slower index.
Tensor patchify(const Tensor& x, int64_t s) {
    int64_t B = x.dim(0), T = x.dim(1), H = x.dim(2) / s, W = x.dim(3) / s, C = x.dim(4);
    return permute(x.reshape({B, T, H, s, W, s, C}), {0, 1, 2, 4, 6, 5, 3}).reshape({B, T, H, W, C * s * s});
}

// Rows and columns of latent cells that padding needs: reflection has to find a second one.
int64_t fewest_cells(bool reflect) { return reflect ? 2 : 1; }

}  // namespace

Ltx2Encoder::Ltx2Encoder(const Ltx2VaeConfig& config) : patch(config.patch) {
    bool reflect = config.encoder_reflect;
    int64_t channels = config.latent_channels;
    conv_in = Ltx2Conv(3 * patch * patch, channels, reflect);
    for (size_t i = 0; i < config.encoder_widths.size(); ++i) {
        Ltx2EncoderLevel level;
        level.resnets = residuals(config.encoder_layers[i], channels, reflect);
        level.downsamplers.emplace_back(channels, config.encoder_widths[i],
                                        resample_stride(config.downsample[i]), reflect);
        channels = config.encoder_widths[i];
        down_blocks.push_back(std::move(level));
    }
    mid_block.resnets = residuals(config.encoder_layers.back(), channels, reflect);
    conv_out = Ltx2Conv(channels, config.latent_channels + 1, reflect);
}

Tensor Ltx2Encoder::forward(const Tensor& video, CausalCache* cache) const {
    if (cache != nullptr) cache->next = 0;
    Ltx2Context context{cache};
    Tensor x = conv_in.forward(patchify(video, patch), context);
    for (const Ltx2EncoderLevel& level : down_blocks) {
        for (const Ltx2Residual& block : level.resnets) x = block.forward(x, context);
        x = level.downsamplers[0].forward(x, context);
    }
    for (const Ltx2Residual& block : mid_block.resnets) x = block.forward(x, context);
    x = conv_out.forward(ltx2_norm_silu(x), context);
    if (cache != nullptr) cache->started = true;
    return x;
}

Ltx2Decoder::Ltx2Decoder(const Ltx2VaeConfig& config) : patch(config.patch) {
    bool reflect = config.decoder_reflect;
    size_t levels = config.decoder_widths.size();
    int64_t channels = config.decoder_widths.back();
    conv_in = Ltx2Conv(config.latent_channels, channels, reflect);
    mid_block.resnets = residuals(config.decoder_layers.back(), channels, reflect);
    for (size_t i = 0; i < levels; ++i) {
        size_t declared = levels - 1 - i;  // the lists of the config run from the last level to the first
        Ltx2DecoderLevel level;
        level.upsamplers.emplace_back(channels, config.upsample_factor[declared],
                                      resample_stride(config.upsample[i]), config.upsample_residual[declared],
                                      reflect);
        channels /= config.upsample_factor[declared];
        level.resnets = residuals(config.decoder_layers[declared], channels, reflect);
        up_blocks.push_back(std::move(level));
    }
    conv_out = Ltx2Conv(channels, 3 * patch * patch, reflect);
}

Tensor Ltx2Decoder::forward(const Tensor& latents, CausalCache* cache) const {
    if (cache != nullptr) cache->next = 0;
    Ltx2Context context{cache};
    Tensor x = conv_in.forward(latents, context);
    {
        Scope scope("mid_block");
        for (const Ltx2Residual& block : mid_block.resnets) x = block.forward(x, context);
    }
    for (size_t i = 0; i < up_blocks.size(); ++i) {
        Scope scope("up_blocks", static_cast<int64_t>(i));
        x = up_blocks[i].upsamplers[0].forward(x, context);
        for (const Ltx2Residual& block : up_blocks[i].resnets) x = block.forward(x, context);
    }
    x = conv_out.forward(ltx2_norm_silu(x), context);
    x = depth_to_space(x, {}, {.stride = {1, patch, patch}, .rows_fastest = true});
    if (cache != nullptr) cache->started = true;
    return x;
}

Ltx2Vae::Ltx2Vae(const Ltx2VaeConfig& config, VaeParts parts) : config_(config) {
    latents_mean = same_layout({config.latent_channels}, {});
    latents_std = same_layout({config.latent_channels}, {.mean = 1});
    latents_mean.keep_fp32 = latents_std.keep_fp32 = true;
    if (parts != VaeParts::decoder) encoder.emplace(config);
    if (parts != VaeParts::encoder) decoder.emplace(config);
}

Tensor Ltx2Vae::encode_moments(const Tensor& video) const {
    if (!config_.encoder_causal) return encoder->forward(video, nullptr);
    int64_t factor = config_.temporal_factor(), cells = config_.patch * config_.patch;
    int64_t unit_bytes =
        video.numel() / video.dim(1) / 3 / cells * factor * config_.latent_channels * size_of(video.dtype());
    std::vector<Tensor> parts;
    run_causal(
        video, factor, chunk_for(1 + (video.dim(1) - 1) / factor, unit_bytes, video.device()),
        [&](CausalCache& cache, const Tensor& x) { return encoder->forward(x, &cache); },
        [&](const Tensor& moments, int64_t) { parts.push_back(moments); });
    return concat(parts, 1);
}

VaeMoments Ltx2Vae::encode(const Tensor& video) const {
    Scope scope("vae");
    check(encoder.has_value(), "this autoencoder was loaded without its encoder");
    int64_t s = config_.spatial_factor(), t = config_.temporal_factor(),
            cells = fewest_cells(config_.encoder_reflect);
    check_input(video.rank() == 5 && video.cols() == 3 && valid_frames(video.dim(1), t) &&
                    video.dim(2) % s == 0 && video.dim(3) % s == 0 && video.numel() > 0,
                "video ", video, " cannot be encoded: [B,T,H,W,3] with 1 + ", t,
                "k frames and sides that are multiples of ", s, " is expected");
    check_input(video.dim(2) >= cells * s && video.dim(3) >= cells * s, "video ", video,
                " is too small to be encoded: sides of at least ", cells * s, " pixels are expected");
    auto moments_of = [&](const Tensor& x) { return encode_moments(x); };
    Tensor moments = tiling.active(video.dim(2), video.dim(3))
                         ? blend_tiles(video, encode_grid(tiling, s, cells), moments_of)
                         : moments_of(video);
    int64_t z = config_.latent_channels;
    Tensor shared = clamp(moments.cols_slice(z, 1), -30, 20);
    return {moments.cols_slice(0, z).contiguous(),
            concat(std::vector<Tensor>(static_cast<size_t>(z), shared), 4)};
}

void Ltx2Vae::check_latents(const Tensor& latents) const {
    check(decoder.has_value(), "this autoencoder was loaded without its decoder");
    check_input(latents.rank() == 5 && latents.cols() == config_.latent_channels && latents.numel() > 0,
                "latents ", latents, " cannot be decoded: [B,t,h,w,", config_.latent_channels,
                "] is expected");
    int64_t cells = fewest_cells(config_.decoder_reflect);
    check_input(latents.dim(2) >= cells && latents.dim(3) >= cells, "latents ", latents,
                " are too small to be decoded: ", cells, " rows and columns at least, that is ",
                cells * config_.spatial_factor(), " pixels");
}

Tensor Ltx2Vae::decode_chunk(VaeDecodeStream& stream, const Tensor& latents) const {
    Scope scope("vae");
    check_latents(latents);
    check_input(
        config_.decoder_causal,
        "this LTX-2 autoencoder's decoder is not causal (decoder_causal in its config.json): it decodes "
        "whole clips only, not a stream");
    return decoder->forward(latents, &stream.cache);
}

void Ltx2Vae::decode_clip(const Tensor& latents, int64_t chunk,
                          const std::function<void(const Tensor& frames, int64_t done)>& emit) const {
    if (!config_.decoder_causal) return emit(decoder->forward(latents, nullptr), latents.dim(1));
    if (chunk <= 0) {
        int64_t s =
            config_.spatial_factor() / config_.patch;  // the largest activation comes before the patches
        int64_t frame = latents.dim(0) * latents.dim(2) * latents.dim(3) * s * s * config_.temporal_factor() *
                        decoder->conv_out.conv.weight.value.cols() * size_of(latents.dtype());
        chunk = chunk_for(latents.dim(1), frame, latents.device());
    }
    run_causal(
        latents, 1, chunk, [&](CausalCache& cache, const Tensor& x) { return decoder->forward(x, &cache); },
        emit);
}

Tensor Ltx2Vae::decode(const Tensor& latents, const VaeDecodeOptions& options) const {
    Scope scope("vae");
    check_latents(latents);
    int64_t s = config_.spatial_factor();
    std::vector<Tensor> parts;
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
            decode_clip(x, options.chunk, [&](const Tensor& frames, int64_t) { pieces.push_back(frames); });
            return concat(pieces, 1);
        };
        emit(blend_tiles(latents, decode_grid(tiling, s, fewest_cells(config_.decoder_reflect)), decode_tile,
                         options.progress));
    } else {
        decode_clip(latents, options.chunk, [&](const Tensor& frames, int64_t done) {
            emit(frames);
            if (options.progress) options.progress(done, latents.dim(1));
        });
    }
    return options.sink ? Tensor() : concat(parts, 1);
}

Tensor Ltx2Vae::normalise(const Tensor& mean) const {
    std::vector<double> m = to_vector<double>(latents_mean.value), s = to_vector<double>(latents_std.value);
    for (size_t i = 0; i < m.size(); ++i) {
        s[i] = 1 / s[i];
        m[i] *= -s[i];
    }
    auto vector = [&](const std::vector<double>& values) {
        return from_vector(values, {config_.latent_channels}).to(mean.dtype()).to(mean.device());
    };
    return affine(mean, vector(s), vector(m));
}

Tensor Ltx2Vae::denormalise(const Tensor& latents) const {
    return affine(latents, latents_std.value.to(latents.dtype()), latents_mean.value.to(latents.dtype()));
}

}  // namespace sana
