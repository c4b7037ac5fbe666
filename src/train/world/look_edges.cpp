#include <algorithm>
#include <cmath>

#include "train/world/look.h"

namespace sana::world {

namespace {

constexpr int64_t kBand = 2;    // pixels on both sides of an edge that are looked at again
constexpr int64_t kWindow = 4;  // tones are means over a square of 2 kWindow + 1

// What a pixel is to a region.
enum class Kind : uint8_t { unknown, own, core, behind, other };
bool belongs(Kind kind) { return kind == Kind::own || kind == Kind::core; }

struct Mean {
    Rgb sum{};
    double count = 0;
    void add(const uint8_t* p) {
        for (size_t k = 0; k < 3; ++k) sum[k] += p[k];
        count += 1;
    }
    Rgb value() const { return {sum[0] / count, sum[1] / count, sum[2] / count}; }
};

// The piece of a picture in which the edges of a region are looked at.
struct Crop {
    int64_t top, left, height, width;
    std::vector<Kind> kinds;
    Kind& at(int64_t row, int64_t column) { return kinds[static_cast<size_t>(row * width + column)]; }
    // f(row, column) of the pixels within so many steps, both ways.
    template <class F>
    void around(int64_t row, int64_t column, int64_t steps, F&& f) const {
        for (int64_t r = std::max<int64_t>(0, row - steps); r <= std::min(height - 1, row + steps); ++r)
            for (int64_t c = std::max<int64_t>(0, column - steps); c <= std::min(width - 1, column + steps);
                 ++c)
                f(r, c);
    }
    template <class F>
    bool any_around(int64_t row, int64_t column, int64_t steps, F&& is) {
        bool any = false;
        around(row, column, steps, [&](int64_t r, int64_t c) { any = any || is(at(r, c)); });
        return any;
    }
    template <class F>
    void each(F&& f) const {
        for (int64_t r = 0; r < height; ++r)
            for (int64_t c = 0; c < width; ++c) f(r, c);
    }
};

Crop crop_around(const Region& region, int64_t height, int64_t width) {
    constexpr int64_t kAround = kBand + kWindow;
    int64_t top = height, bottom = 0, left = width, right = 0;
    for (int32_t i : region.pixels) {
        top = std::min(top, i / width);
        bottom = std::max(bottom, i / width);
        left = std::min(left, i % width);
        right = std::max(right, i % width);
    }
    top = std::max<int64_t>(0, top - kAround);
    left = std::max<int64_t>(0, left - kAround);
    bottom = std::min(height - 1, bottom + kAround);
    right = std::min(width - 1, right + kAround);
    Crop crop{top, left, bottom - top + 1, right - left + 1, {}};
    crop.kinds.resize(static_cast<size_t>(crop.height * crop.width));
    return crop;
}

// The largest piece of what is in that hangs together by sides, as places in the crop.
std::vector<int64_t> largest_piece(const Crop& crop, std::vector<uint8_t> in) {
    std::vector<int64_t> best, piece;
    for (size_t start = 0; start < in.size(); ++start) {
        if (in[start] == 0) continue;
        in[start] = 0;
        piece.assign(1, static_cast<int64_t>(start));
        for (size_t k = 0; k < piece.size(); ++k) {
            int64_t row = piece[k] / crop.width, column = piece[k] % crop.width;
            crop.around(row, column, 1, [&](int64_t r, int64_t c) {
                uint8_t& next = in[static_cast<size_t>(r * crop.width + c)];
                if (next == 0 || (r != row && c != column)) return;
                next = 0;
                piece.push_back(r * crop.width + c);
            });
        }
        if (piece.size() > best.size()) best = piece;
    }
    return best;
}

}  // namespace

void sharpen(std::vector<Region>& all, const uint8_t* rgb, const std::vector<uint8_t>& labels, int64_t height,
             int64_t width, Color background) {
    std::vector<uint8_t> taken(labels.size());
    for (const Region& region : all)
        for (int32_t i : region.pixels) taken[static_cast<size_t>(i)] = 1;
    for (Region& region : all) {
        Crop crop = crop_around(region, height, width);
        auto place = [&](int64_t r, int64_t c) { return (crop.top + r) * width + crop.left + c; };
        auto label = [&](int64_t r, int64_t c) {
            return static_cast<Color>(labels[static_cast<size_t>(place(r, c))]);
        };
        crop.each([&](int64_t r, int64_t c) {
            if (taken[static_cast<size_t>(place(r, c))] != 0) crop.at(r, c) = Kind::other;
        });
        for (int32_t i : region.pixels) crop.at(i / width - crop.top, i % width - crop.left) = Kind::own;
        // Pixels that show nothing but the thing, and nothing but what is behind it.
        Mean core, behind;
        crop.each([&](int64_t r, int64_t c) {
            Kind& kind = crop.at(r, c);
            if (kind == Kind::own && label(r, c) == region.color &&
                !crop.any_around(r, c, 1, [](Kind k) { return !belongs(k); })) {
                kind = Kind::core;
                core.add(rgb + 3 * place(r, c));
            } else if (kind == Kind::unknown && label(r, c) == background &&
                       !crop.any_around(r, c, 1, [](Kind k) { return belongs(k) || k == Kind::other; })) {
                kind = Kind::behind;
                behind.add(rgb + 3 * place(r, c));
            }
        });
        if (core.count == 0 || behind.count == 0) continue;
        std::vector<uint8_t> in(crop.kinds.size());
        crop.each([&](int64_t r, int64_t c) {
            Kind kind = crop.at(r, c);
            uint8_t& answer = in[static_cast<size_t>(r * crop.width + c)];
            answer = belongs(kind);
            bool doubtful = belongs(kind)
                                ? label(r, c) == background ||
                                      crop.any_around(r, c, kBand, [](Kind k) { return !belongs(k); })
                                : kind != Kind::other && crop.any_around(r, c, kBand, belongs);
            if (!doubtful) return;
            Mean near_core, near_behind;
            crop.around(r, c, kWindow, [&](int64_t y, int64_t x) {
                Kind k = crop.at(y, x);
                if (k == Kind::core) near_core.add(rgb + 3 * place(y, x));
                if (k == Kind::behind) near_behind.add(rgb + 3 * place(y, x));
            });
            Rgb from = (near_behind.count > 0 ? near_behind : behind).value(),
                to = (near_core.count > 0 ? near_core : core).value();
            double along = 0, whole = 0;
            for (size_t k = 0; k < 3; ++k) {
                along += (rgb[3 * place(r, c) + static_cast<int64_t>(k)] - from[k]) * (to[k] - from[k]);
                whole += (to[k] - from[k]) * (to[k] - from[k]);
            }
            answer = 2 * along > whole;
        });
        std::vector<int64_t> piece = largest_piece(crop, in);
        if (piece.empty()) continue;
        std::sort(piece.begin(), piece.end());
        region.pixels.clear();
        for (int64_t i : piece)
            region.pixels.push_back(static_cast<int32_t>(place(i / crop.width, i % crop.width)));
        region.measure(width);
    }
}

}  // namespace sana::world
