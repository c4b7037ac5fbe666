#include "pipeline/preview.h"

#include <algorithm>
#include <cmath>

#include "core/random.h"

namespace sana {

namespace {

// Solves (A^T A + ridge) X = A^T B for A [n,m], B [n,3] by Gaussian elimination with pivoting.
std::vector<double> least_squares(const std::vector<double>& a, const std::vector<double>& b, size_t n,
                                  size_t m) {
    std::vector<double> left(m * m, 0), right(m * 3, 0);
    for (size_t r = 0; r < n; ++r) {
        for (size_t i = 0; i < m; ++i) {
            for (size_t j = 0; j < m; ++j) left[i * m + j] += a[r * m + i] * a[r * m + j];
            for (size_t c = 0; c < 3; ++c) right[i * 3 + c] += a[r * m + i] * b[r * 3 + c];
        }
    }
    for (size_t i = 0; i < m; ++i) left[i * m + i] += 1e-2 * static_cast<double>(n);
    for (size_t i = 0; i < m; ++i) {
        size_t pivot = i;
        for (size_t r = i + 1; r < m; ++r) {
            if (std::abs(left[r * m + i]) > std::abs(left[pivot * m + i])) pivot = r;
        }
        for (size_t j = 0; j < m; ++j) std::swap(left[i * m + j], left[pivot * m + j]);
        for (size_t c = 0; c < 3; ++c) std::swap(right[i * 3 + c], right[pivot * 3 + c]);
        for (size_t r = 0; r < m; ++r) {
            if (r == i) continue;
            double factor = left[r * m + i] / left[i * m + i];
            for (size_t j = i; j < m; ++j) left[r * m + j] -= factor * left[i * m + j];
            for (size_t c = 0; c < 3; ++c) right[r * 3 + c] -= factor * right[i * 3 + c];
        }
    }
    for (size_t i = 0; i < m; ++i) {
        for (size_t c = 0; c < 3; ++c) right[i * 3 + c] /= left[i * m + i];
    }
    return right;
}

// Noise at a quarter of the resolution, repeated: neighbours that agree, as in real latents.
Tensor smooth_latents(int64_t side, int64_t channels, uint64_t stream) {
    Tensor coarse = randn_philox({side / 4, side / 4, channels}, 1, stream),
           out = empty({1, 1, side, side, channels}, DType::F32);
    for (int64_t h = 0; h < side; ++h) {
        for (int64_t w = 0; w < side; ++w) {
            const float* in = coarse.data<float>() + (h / 4 * (side / 4) + w / 4) * channels;
            std::copy(in, in + channels, out.data<float>() + (h * side + w) * channels);
        }
    }
    return out;
}

}  // namespace

LatentPreview::LatentPreview(const Vae& vae, const VaeShape& shape) : channels_(shape.latent_channels) {
    constexpr int64_t kSide = 8, kClips = 8;
    size_t m = static_cast<size_t>(channels_) + 1, n = static_cast<size_t>(kSide * kSide * kClips);
    std::vector<double> a(n * m), b(n * 3, 0);
    int64_t factor = shape.spatial_factor;
    size_t row = 0;
    for (int64_t clip = 0; clip < kClips; ++clip) {
        Tensor latents = smooth_latents(kSide, channels_, static_cast<uint64_t>(clip));
        Tensor video = vae.decode(vae.denormalise(latents.to(vae.device())).to(vae.dtype()));
        video = video.to(DType::F32).to(kCpu);
        for (int64_t cell = 0; cell < kSide * kSide; ++cell, ++row) {
            const float* z = latents.data<float>() + cell * channels_;
            std::copy(z, z + channels_, a.begin() + static_cast<std::ptrdiff_t>(row * m));
            a[row * m + m - 1] = 1;
            for (int64_t p = 0; p < factor * factor; ++p) {
                int64_t h = cell / kSide * factor + p / factor, w = cell % kSide * factor + p % factor;
                const float* rgb = video.data<float>() + (h * kSide * factor + w) * 3;
                for (size_t c = 0; c < 3; ++c)
                    b[row * 3 + c] += std::clamp(rgb[c], -1.0f, 1.0f) / static_cast<double>(factor * factor);
            }
        }
    }
    map_ = least_squares(a, b, n, m);
}

Tensor LatentPreview::frames(const Tensor& latents, int64_t scale) const {
    int64_t frames = latents.dim(1), height = latents.dim(2), width = latents.dim(3);
    Tensor out = empty({frames, height * scale, width * scale, 3}, DType::U8);
    for (int64_t cell = 0; cell < frames * height * width; ++cell) {
        const float* z = latents.data<float>() + cell * channels_;
        int64_t t = cell / (height * width), h = cell / width % height, w = cell % width;
        uint8_t rgb[3];
        for (size_t c = 0; c < 3; ++c) {
            double value = map_[static_cast<size_t>(channels_) * 3 + c];
            for (int64_t i = 0; i < channels_; ++i) value += map_[static_cast<size_t>(i) * 3 + c] * z[i];
            rgb[c] = static_cast<uint8_t>(std::clamp((value + 1) * 127.5, 0.0, 255.0));
        }
        for (int64_t p = 0; p < scale * scale; ++p) {
            int64_t y = h * scale + p / scale, x = w * scale + p % scale;
            std::copy(rgb, rgb + 3, out.data<uint8_t>() + ((t * height * scale + y) * width * scale + x) * 3);
        }
    }
    return out;
}

}  // namespace sana
