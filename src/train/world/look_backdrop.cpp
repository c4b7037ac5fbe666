#include <algorithm>
#include <cmath>

#include "train/world/look.h"

namespace sana::world {

namespace {

struct Plane {
    std::vector<double> value;
    std::vector<uint8_t> valid;
    int64_t height, width;
    double operator()(int64_t row, int64_t column) const {
        return value[static_cast<size_t>(row * width + column)];
    }
};

// Lightness of a frame; valid where the neighbourhood of this radius holds background only.
Plane lightness(const uint8_t* rgb, const std::vector<uint8_t>& labels, int64_t height, int64_t width,
                Color background, int64_t radius) {
    Plane plane{std::vector<double>(labels.size()), std::vector<uint8_t>(labels.size(), 1), height, width};
    for (size_t i = 0; i < labels.size(); ++i)
        plane.value[i] = 0.3 * rgb[3 * i] + 0.59 * rgb[3 * i + 1] + 0.11 * rgb[3 * i + 2];
    // Rows first, then columns: a box of 2 radius + 1.
    std::vector<uint8_t> near(labels.size(), 1);
    for (int64_t row = 0; row < height; ++row)
        for (int64_t column = 0; column < width; ++column) {
            if (labels[static_cast<size_t>(row * width + column)] == static_cast<uint8_t>(background))
                continue;
            for (int64_t c = std::max<int64_t>(0, column - radius); c <= std::min(width - 1, column + radius);
                 ++c)
                near[static_cast<size_t>(row * width + c)] = 0;
        }
    for (int64_t row = 0; row < height; ++row)
        for (int64_t column = 0; column < width; ++column) {
            if (near[static_cast<size_t>(row * width + column)] != 0) continue;
            for (int64_t r = std::max<int64_t>(0, row - radius); r <= std::min(height - 1, row + radius); ++r)
                plane.valid[static_cast<size_t>(r * width + column)] = 0;
        }
    return plane;
}

// Mean over a box, borders repeated by shrinking it.
std::vector<double> box_blur(const std::vector<double>& in, int64_t height, int64_t width, int64_t radius) {
    std::vector<double> rows(in.size()), out(in.size());
    for (int pass = 0; pass < 2; ++pass) {
        const std::vector<double>& from = pass == 0 ? in : rows;
        std::vector<double>& to = pass == 0 ? rows : out;
        int64_t lines = pass == 0 ? height : width, along = pass == 0 ? width : height;
        int64_t step = pass == 0 ? 1 : width, jump = pass == 0 ? width : 1;
        for (int64_t line = 0; line < lines; ++line) {
            double sum = 0;
            int64_t count = 0;
            auto at = [&](int64_t i) { return from[static_cast<size_t>(line * jump + i * step)]; };
            for (int64_t i = 0; i < std::min(radius, along); ++i, ++count) sum += at(i);
            for (int64_t i = 0; i < along; ++i) {
                if (i + radius < along) sum += at(i + radius), ++count;
                if (i - radius - 1 >= 0) sum -= at(i - radius - 1), --count;
                to[static_cast<size_t>(line * jump + i * step)] = sum / static_cast<double>(count);
            }
        }
    }
    return out;
}

// Solves a small symmetric positive definite system in place.
template <size_t n>
std::array<double, n> solved(std::array<std::array<double, n>, n> a, std::array<double, n> b) {
    for (size_t i = 0; i < n; ++i) {
        for (size_t j = i + 1; j < n; ++j) {
            double factor = a[j][i] / a[i][i];
            for (size_t k = i; k < n; ++k) a[j][k] -= factor * a[i][k];
            b[j] -= factor * b[i];
        }
    }
    for (size_t i = n; i-- > 0;) {
        for (size_t k = i + 1; k < n; ++k) b[i] -= a[i][k] * b[k];
        b[i] /= a[i][i];
    }
    return b;
}

// A mean squared gradient, in levels of lightness a pixel, below which nothing is seen to move. At twice as much all of 500
// drawn clips are judged right still, at eight times one is not.
constexpr double kStillness = 0.5;

// Shift (pixels) and growth (logarithm of the zoom) from one frame to the next: Lucas and Kanade's least squares with
// the mean gradient of both.
std::array<double, 3> movement(const Plane& from, const Plane& to) {
    std::array<std::array<double, 3>, 3> a{};
    std::array<double, 3> b{};
    double middle_x = static_cast<double>(from.width - 1) / 2,
           middle_y = static_cast<double>(from.height - 1) / 2;
    for (int64_t row = 1; row + 1 < from.height; ++row) {
        for (int64_t column = 1; column + 1 < from.width; ++column) {
            size_t i = static_cast<size_t>(row * from.width + column);
            if (from.valid[i] == 0 || to.valid[i] == 0) continue;
            double gx =
                (from(row, column + 1) - from(row, column - 1) + to(row, column + 1) - to(row, column - 1)) /
                4;
            double gy =
                (from(row + 1, column) - from(row - 1, column) + to(row + 1, column) - to(row - 1, column)) /
                4;
            double gz =
                gx * (static_cast<double>(column) - middle_x) + gy * (static_cast<double>(row) - middle_y);
            double change = from(row, column) - to(row, column);
            std::array<double, 3> g = {gx, gy, gz};
            for (size_t j = 0; j < 3; ++j) {
                b[j] += g[j] * change;
                for (size_t k = 0; k < 3; ++k) a[j][k] += g[j] * g[k];
            }
        }
    }
    // A direction in which nothing changes (along stripes, on a plain background) gives no movement instead of noise, nor
    // does the faint glow that generated things have around them and take along.
    double scale = static_cast<double>(from.height * from.width);
    double reach = static_cast<double>(std::min(from.height, from.width)) / 4;
    a[0][0] += kStillness * scale;
    a[1][1] += kStillness * scale;
    a[2][2] += kStillness * scale * reach * reach;
    return solved(a, b);
}

Texture pattern_of(const Plane& plane) {
    // The best plane through the lightness: light from a side, or the gradient itself.
    std::array<std::array<double, 3>, 3> a{};
    std::array<double, 3> b{};
    double n = 0;
    auto basis = [&](int64_t row, int64_t column) {
        return std::array<double, 3>{1, static_cast<double>(column) / static_cast<double>(plane.width) - 0.5,
                                     static_cast<double>(row) / static_cast<double>(plane.height) - 0.5};
    };
    auto each = [&](auto&& f) {
        for (int64_t row = 0; row < plane.height; ++row)
            for (int64_t column = 0; column < plane.width; ++column)
                if (plane.valid[static_cast<size_t>(row * plane.width + column)] != 0) f(row, column);
    };
    each([&](int64_t row, int64_t column) {
        auto g = basis(row, column);
        n += 1;
        for (size_t j = 0; j < 3; ++j) {
            b[j] += g[j] * plane(row, column);
            for (size_t k = 0; k < 3; ++k) a[j][k] += g[j] * g[k];
        }
    });
    if (n < 50) return Texture::plain;
    for (size_t j = 0; j < 3; ++j) a[j][j] += 1e-9 * n;
    auto fit = solved(a, b);
    std::vector<double> rest;
    double squares = 0;
    auto rest_at = [&](int64_t row, int64_t column) {
        auto g = basis(row, column);
        return plane(row, column) - fit[0] * g[0] - fit[1] * g[1] - fit[2] * g[2];
    };
    each([&](int64_t row, int64_t column) {
        rest.push_back(rest_at(row, column));
        squares += rest.back() * rest.back();
    });
    double deviation = std::sqrt(squares / n) / std::max(fit[0], 20.0);
    // Light from a side changes the lightness by at most 0.4 of its mean over the picture, a gradient by 0.5 or more.
    if (deviation < 0.055) return std::abs(fit[2]) / fit[0] > 0.46 ? Texture::gradient : Texture::plain;
    double across = 1e-9, along = 1e-9;
    each([&](int64_t row, int64_t column) {
        if (row + 1 >= plane.height || column + 1 >= plane.width) return;
        double dx = plane(row, column + 1) - plane(row, column),
               dy = plane(row + 1, column) - plane(row, column);
        across += dx * dx;
        along += dy * dy;
    });
    if (std::min(across, along) < 0.2 * std::max(across, along)) return Texture::striped;
    // Dots cover 0.23 of the area, squares half.
    std::vector<double> sorted = rest;
    std::sort(sorted.begin(), sorted.end());
    double low = sorted[sorted.size() / 20], high = sorted[sorted.size() - 1 - sorted.size() / 20],
           middle = (low + high) / 2;
    double above =
        static_cast<double>(std::count_if(rest.begin(), rest.end(), [&](double v) { return v > middle; }));
    double share = std::min(above, n - above) / n;
    return share < 0.36 ? Texture::dotted : Texture::checkered;
}

}  // namespace

Backdrop look_at_backdrop(const Tensor& frames, const std::vector<std::vector<uint8_t>>& labels,
                          Color background) {
    int64_t count = frames.dim(0), height = frames.dim(1), width = frames.dim(2);
    double side = static_cast<double>(std::min(height, width));
    // Wide enough for a step of the fastest pan, narrow against the patterns.
    int64_t radius = std::max<int64_t>(1, std::llround(side / 32));
    Backdrop out;
    std::array<double, 3> total{};
    Plane before;
    std::array<int, kTextures> votes{};
    for (int64_t t = 0; t < count; ++t) {
        const uint8_t* rgb = frames.data<uint8_t>() + t * height * width * 3;
        const std::vector<uint8_t>& label = labels[static_cast<size_t>(t)];
        if (t % std::max<int64_t>(1, count / 5) == 0) {
            Plane plane = lightness(rgb, label, height, width, background, 3);
            plane.value = box_blur(plane.value, height, width, std::max<int64_t>(1, std::llround(side / 96)));
            ++votes[static_cast<size_t>(pattern_of(plane))];
        }
        if (count == 1) break;
        Plane now = lightness(rgb, label, height, width, background, radius + 2);
        now.value = box_blur(now.value, height, width, radius);
        if (t > 0) {
            auto step = movement(before, now);
            for (size_t i = 0; i < 3; ++i) total[i] += step[i];
        }
        before = std::move(now);
    }
    out.pattern = static_cast<Texture>(std::max_element(votes.begin(), votes.end()) - votes.begin());
    double pan = total[0] / side;
    if (std::abs(total[2]) > 0.14) {
        out.camera = total[2] > 0 ? Motion::zoom_in : Motion::zoom_out;
    } else if (std::abs(pan) > 0.15) {
        out.camera = pan > 0 ? Motion::pan_left : Motion::pan_right;  // the scene goes the other way
    }
    return out;
}

}  // namespace sana::world
