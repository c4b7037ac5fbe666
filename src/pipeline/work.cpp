#include "pipeline/work.h"

namespace sana {

namespace {

double real(int64_t n) { return static_cast<double>(n); }

// A dense convolution of so many taps on so many positions, or a matrix product of so many rows (one tap).
double product(double rows, int64_t taps, int64_t in, int64_t out) {
    return 2 * rows * real(taps) * real(in) * real(out);
}

double wan_decode(const WanVaeConfig& c, const Shape& latents) {
    double frames = real(latents[1]), image = real(latents[0] * latents[2] * latents[3]);
    int64_t channels = c.decoder_base * c.multipliers.back(), levels = c.levels();
    double rows = frames * image, sum = product(rows, 1, c.latent_channels, c.latent_channels);
    sum += product(rows, 27, c.latent_channels, channels);
    sum += 4 * product(rows, 27, channels, channels);  // two residual blocks
    sum +=
        product(rows, 1, channels, 4 * channels) + 4 * rows * image * real(channels);  // attention in a frame
    for (int64_t level = 0; level < levels; ++level) {
        int64_t out = c.decoder_base * c.multipliers[static_cast<size_t>(levels - 1 - level)];
        for (int64_t i = 0; i < c.residual_blocks + 1; ++i) {
            sum += product(rows, 27, channels, out) + product(rows, 27, out, out);
            if (channels != out) sum += product(rows, 1, channels, out);
            channels = out;
        }
        if (level + 1 == levels) break;
        if (c.temporal_downsample[static_cast<size_t>(levels - 2 - level)]) {
            sum += product((frames - 1) * image, 3, channels, 2 * channels);
            frames = 1 + 2 * (frames - 1);
        }
        image *= 4;
        rows = frames * image;
        sum += product(rows, 9, channels, channels / 2);
        channels /= 2;
    }
    return sum + product(rows, 27, channels, 3);
}

double ltx2_decode(const Ltx2VaeConfig& c, const Shape& latents) {
    double frames = real(latents[1]), image = real(latents[0] * latents[2] * latents[3]);
    int64_t channels = c.decoder_widths.back();
    size_t levels = c.decoder_widths.size();
    double sum = product(frames * image, 27, c.latent_channels, channels);
    sum += 2 * real(c.decoder_layers.back()) * product(frames * image, 27, channels, channels);
    for (size_t i = 0; i < levels; ++i) {
        size_t declared = levels - 1 - i;
        auto stride = resample_stride(c.upsample[i]);
        int64_t volume = stride[0] * stride[1] * stride[2], factor = c.upsample_factor[declared];
        sum += product(frames * image, 27, channels, channels * volume / factor);
        channels /= factor;
        frames = frames * real(stride[0]) - real(stride[0] - 1);
        image *= real(stride[1] * stride[2]);
        sum += 2 * real(c.decoder_layers[declared]) * product(frames * image, 27, channels, channels);
    }
    return sum + product(frames * image, 27, channels, 3 * c.patch * c.patch);
}

}  // namespace

Work dit_work(const DiTConfig& c, const Shape& latents, int64_t text_length, int64_t element_size,
              int64_t branches) {
    int64_t width = c.width(), inner = c.inner(), layers = c.layers;
    double once = real(latents.numel() / latents[4] / c.patch_volume()), rows = once * real(branches);
    double block = product(rows, 1, width, 6 * width)  // q, k, v, out, and q and out of cross attention
                   + product(rows, 1, width, 2 * inner) + product(rows, 1, inner, width) +
                   product(rows, 3, width, width);  // the temporal convolution
    double ends = product(once, 1, width, c.patch_volume() * c.in_channels) +
                  product(rows, 1, width, c.patch_volume() * c.out_channels);
    double rest = 4 * rows * real(width * c.head_dim)     // the state of linear attention, and its use
                  + 4 * rows * real(text_length * width)  // cross attention
                  + 18 * rows * real(2 * inner);          // depthwise 3x3
    double passes = 10 * rows * real(width) + rows * real(3 * inner);
    double shared = rows - once, shared_product = product(shared, 1, width, 4 * width);
    double products = real(layers) * block + ends - shared_product;
    return {products + real(layers) * rest - 4 * shared * real(width * c.head_dim), products,
            (real(layers) * passes - 6 * shared * real(width)) * real(element_size)};
}

Work text_work(const Gemma2Config& c, const std::vector<int64_t>& lengths) {
    Work work;
    int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
    for (int64_t length : lengths) {
        double rows = real(length * c.layers);
        work.product += product(rows, 1, c.hidden, 2 * q + 2 * kv) + product(rows, 1, c.hidden, 3 * c.inner);
        work.flop += 2 * rows * real(length * q);  // causal: half of the scores
    }
    work.flop += work.product;
    return work;
}

Work decode_work(const VaeConfig& config, const Shape& latents) {
    const auto* wan = std::get_if<WanVaeConfig>(&config);
    double flop =
        wan != nullptr ? wan_decode(*wan, latents) : ltx2_decode(std::get<Ltx2VaeConfig>(config), latents);
    return {flop, flop, 0};
}

}  // namespace sana
