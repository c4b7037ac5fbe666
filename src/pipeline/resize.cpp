#include "pipeline/resize.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "core/parallel.h"

namespace sana {

namespace {

constexpr int kPrecision = 32 - 8 - 2;  // bits of Pillow's fixed-point coefficients

double lanczos3(double x) {
    if (x <= -3 || x >= 3) return 0;
    auto sinc = [](double v) {
        return v == 0 ? 1.0 : std::sin(std::numbers::pi * v) / (std::numbers::pi * v);
    };
    return sinc(x) * sinc(x / 3);
}

// For every output position: the first source position and the coefficients.
struct Taps {
    std::vector<int64_t> first;
    std::vector<std::vector<int32_t>> weights;
};

Taps lanczos_taps(int64_t from, int64_t to) {
    Taps taps;
    double scale = static_cast<double>(from) / static_cast<double>(to);
    double filter_scale = std::max(scale, 1.0), support = 3 * filter_scale;
    for (int64_t i = 0; i < to; ++i) {
        double centre = (static_cast<double>(i) + 0.5) * scale;
        int64_t low = std::max<int64_t>(0, static_cast<int64_t>(centre - support + 0.5));
        int64_t high = std::min<int64_t>(from, static_cast<int64_t>(centre + support + 0.5));
        std::vector<double> values;
        double sum = 0;
        for (int64_t j = low; j < high; ++j) {
            values.push_back(lanczos3((static_cast<double>(j) - centre + 0.5) / filter_scale));
            sum += values.back();
        }
        std::vector<int32_t> fixed;
        for (double value : values) {
            double scaled = (sum != 0 ? value / sum : value) * (1 << kPrecision);
            fixed.push_back(static_cast<int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5));
        }
        taps.first.push_back(low);
        taps.weights.push_back(std::move(fixed));
    }
    return taps;
}

// One pass along an axis: `outer` lines, `inner` bytes between neighbours of the axis.
Tensor pass(const Tensor& image, const Taps& taps, const Shape& shape, int64_t lines, int64_t from,
            int64_t inner) {
    Tensor out = empty(shape, DType::U8);
    int64_t to = static_cast<int64_t>(taps.first.size());
    parallel_for(lines * to, inner * 12, [&](int64_t index) {
        int64_t line = index / to, i = index % to;
        const std::vector<int32_t>& weights = taps.weights[static_cast<size_t>(i)];
        const uint8_t* in =
            image.data<uint8_t>() + (line * from + taps.first[static_cast<size_t>(i)]) * inner;
        uint8_t* result = out.data<uint8_t>() + (line * to + i) * inner;
        for (int64_t c = 0; c < inner; ++c) {
            int64_t sum = int64_t{1} << (kPrecision - 1);
            for (size_t k = 0; k < weights.size(); ++k)
                sum += int64_t{weights[k]} * in[static_cast<int64_t>(k) * inner + c];
            result[c] = static_cast<uint8_t>(std::clamp<int64_t>(sum >> kPrecision, 0, 255));
        }
    });
    return out;
}

Tensor crop(const Tensor& image, int64_t top, int64_t left, Size size) {
    Tensor out = empty({size.height, size.width, 3}, DType::U8);
    for (int64_t h = 0; h < size.height; ++h) {
        const uint8_t* in = image.data<uint8_t>() + ((top + h) * image.dim(1) + left) * 3;
        std::copy(in, in + size.width * 3, out.data<uint8_t>() + h * size.width * 3);
    }
    return out;
}

Size scaled(const Tensor& image, double factor) {
    auto side = [&](int64_t n) {
        return std::max<int64_t>(1, std::llround(static_cast<double>(n) * factor));
    };
    return {side(image.dim(1)), side(image.dim(0))};
}

}  // namespace

Tensor resize_lanczos(const Tensor& image, Size size) {
    check(image.rank() == 3 && image.dim(2) == 3 && image.dtype() == DType::U8, "resize of ", image);
    Tensor out = image;
    int64_t height = image.dim(0), width = image.dim(1);
    if (width != size.width) {
        out = pass(out, lanczos_taps(width, size.width), {height, size.width, 3}, height, width, 3);
    }
    if (height != size.height) {
        out = pass(out, lanczos_taps(height, size.height), {size.height, size.width, 3}, 1, height,
                   size.width * 3);
    }
    return out;
}

Fit parse_fit(std::string_view name) {
    if (name == "crop") return Fit::crop;
    if (name == "pad") return Fit::pad;
    if (name == "stretch") return Fit::stretch;
    fail_input("fit ", name, " is not known; use crop, pad or stretch");
}

Tensor fit_image(const Tensor& image, Size size, Fit fit) {
    double wide = static_cast<double>(size.width) / static_cast<double>(image.dim(1));
    double high = static_cast<double>(size.height) / static_cast<double>(image.dim(0));
    if (fit == Fit::stretch) return resize_lanczos(image, size);
    if (fit == Fit::crop) {
        Size cover = scaled(image, std::max(wide, high));
        cover = {std::max(cover.width, size.width), std::max(cover.height, size.height)};
        Tensor large = resize_lanczos(image, cover);
        return crop(large, (cover.height - size.height) / 2, (cover.width - size.width) / 2, size);
    }
    Size inside = scaled(image, std::min(wide, high));
    inside = {std::min(inside.width, size.width), std::min(inside.height, size.height)};
    Tensor small = resize_lanczos(image, inside), out = zeros({size.height, size.width, 3}, DType::U8);
    int64_t top = (size.height - inside.height) / 2, left = (size.width - inside.width) / 2;
    for (int64_t h = 0; h < inside.height; ++h) {
        const uint8_t* in = small.data<uint8_t>() + h * inside.width * 3;
        std::copy(in, in + inside.width * 3, out.data<uint8_t>() + ((top + h) * size.width + left) * 3);
    }
    return out;
}

Tensor resize_and_crop(const Tensor& frames, Size size) {
    int64_t height = frames.dim(1), width = frames.dim(2);
    if (width == size.width && height == size.height) return frames;
    double ratio = std::max(static_cast<double>(size.height) / static_cast<double>(height),
                            static_cast<double>(size.width) / static_cast<double>(width));
    int64_t new_height = static_cast<int64_t>(static_cast<double>(height) * ratio);
    int64_t new_width = static_cast<int64_t>(static_cast<double>(width) * ratio);
    new_height = std::max(new_height, size.height);
    new_width = std::max(new_width, size.width);
    int64_t top = (new_height - size.height) / 2, left = (new_width - size.width) / 2;
    struct Sample {
        int64_t low, high;
        float weight;
    };
    auto sample = [](int64_t i, int64_t from, int64_t to) {
        double position =
            (static_cast<double>(i) + 0.5) * static_cast<double>(from) / static_cast<double>(to) - 0.5;
        position = std::max(position, 0.0);
        int64_t low = std::min(static_cast<int64_t>(position), from - 1);
        return Sample{low, std::min(low + 1, from - 1),
                      static_cast<float>(position - static_cast<double>(low))};
    };
    Tensor out = empty({frames.dim(0), size.height, size.width, 3}, DType::F32);
    parallel_for(frames.dim(0) * size.height, size.width * 20, [&](int64_t row) {
        Sample y = sample(row % size.height + top, height, new_height);
        const float* frame = frames.data<float>() + row / size.height * height * width * 3;
        float* result = out.data<float>() + row * size.width * 3;
        for (int64_t w = 0; w < size.width; ++w) {
            Sample x = sample(w + left, width, new_width);
            for (int64_t c = 0; c < 3; ++c) {
                auto at = [&](int64_t h, int64_t v) { return frame[(h * width + v) * 3 + c]; };
                float upper = at(y.low, x.low) * (1 - x.weight) + at(y.low, x.high) * x.weight;
                float lower = at(y.high, x.low) * (1 - x.weight) + at(y.high, x.high) * x.weight;
                result[w * 3 + c] = upper * (1 - y.weight) + lower * y.weight;
            }
        }
    });
    return out;
}

}  // namespace sana
