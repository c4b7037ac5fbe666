// Where a thing ends, when its edges are soft: by tones, region by region.
#include <algorithm>
#include <cmath>

#include "train/world/look.h"

namespace sana::world {

namespace {

constexpr int64_t kBand =
    2;  // pixels on both sides of an edge that are looked at again: as far as blur reaches
constexpr int64_t kWindow =
    4;  // tones are means over a square of 2 kWindow + 1: beyond the blur, within a pattern

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

struct Frame {
    const uint8_t* rgb;
    const std::vector<uint8_t>& labels;  // the colour of every pixel
    int64_t height, width;
    Color background;
};

// The piece of a frame in which the edges of a region are looked at. Rows and columns count from its corner.
class Crop {
public:
    // taken: the pixels of all regions of the frame.
    Crop(const Frame& frame, const Region& region, const std::vector<uint8_t>& taken)
        : frame_(frame), color_(region.color) {
        constexpr int64_t kAround = kBand + kWindow;
        int64_t bottom = 0, right = 0;
        top_ = frame.height;
        left_ = frame.width;
        for (int32_t i : region.pixels) {
            top_ = std::min(top_, i / frame.width);
            bottom = std::max(bottom, i / frame.width);
            left_ = std::min(left_, i % frame.width);
            right = std::max(right, i % frame.width);
        }
        top_ = std::max<int64_t>(0, top_ - kAround);
        left_ = std::max<int64_t>(0, left_ - kAround);
        height_ = std::min(frame.height, bottom + kAround + 1) - top_;
        width_ = std::min(frame.width, right + kAround + 1) - left_;
        kinds_.resize(static_cast<size_t>(height_ * width_));
        each([&](int64_t r, int64_t c) {
            if (taken[place(r, c)] != 0) at(r, c) = Kind::other;
        });
        for (int32_t i : region.pixels) at(i / frame.width - top_, i % frame.width - left_) = Kind::own;
        find_tones();
    }

    // Whether there are pixels of the thing alone and of what is behind it alone.
    bool has_tones() const { return core_.count > 0 && behind_.count > 0; }

    // The pixels of the frame that the thing covers by half or more, as far as they hang together.
    std::vector<int32_t> covered() {
        std::vector<uint8_t> in(kinds_.size());
        each([&](int64_t r, int64_t c) {
            in[index(r, c)] = doubtful(r, c) ? mostly_thing(r, c) : belongs(at(r, c));
        });
        std::vector<int32_t> pixels;
        for (int64_t i : largest_piece(std::move(in)))
            pixels.push_back(static_cast<int32_t>(place(i / width_, i % width_)));
        std::sort(pixels.begin(), pixels.end());
        return pixels;
    }

private:
    size_t index(int64_t row, int64_t column) const { return static_cast<size_t>(row * width_ + column); }
    Kind& at(int64_t row, int64_t column) { return kinds_[index(row, column)]; }
    size_t place(int64_t row, int64_t column) const {
        return static_cast<size_t>((top_ + row) * frame_.width + left_ + column);
    }
    const uint8_t* pixel(int64_t row, int64_t column) const { return frame_.rgb + 3 * place(row, column); }
    Color label(int64_t row, int64_t column) const {
        return static_cast<Color>(frame_.labels[place(row, column)]);
    }

    template <class F>
    void each(F&& f) const {
        for (int64_t r = 0; r < height_; ++r)
            for (int64_t c = 0; c < width_; ++c) f(r, c);
    }
    // f(row, column) of the pixels within so many steps, both ways.
    template <class F>
    void around(int64_t row, int64_t column, int64_t steps, F&& f) const {
        for (int64_t r = std::max<int64_t>(0, row - steps); r <= std::min(height_ - 1, row + steps); ++r)
            for (int64_t c = std::max<int64_t>(0, column - steps); c <= std::min(width_ - 1, column + steps);
                 ++c)
                f(r, c);
    }
    template <class F>
    bool any_around(int64_t row, int64_t column, int64_t steps, F&& is) {
        bool any = false;
        around(row, column, steps, [&](int64_t r, int64_t c) { any = any || is(at(r, c)); });
        return any;
    }

    void find_tones() {
        each([&](int64_t r, int64_t c) {
            Kind& kind = at(r, c);
            if (kind == Kind::own && label(r, c) == color_ &&
                !any_around(r, c, 1, [](Kind k) { return !belongs(k); })) {
                kind = Kind::core;
                core_.add(pixel(r, c));
            } else if (kind == Kind::unknown && label(r, c) == frame_.background &&
                       !any_around(r, c, 1, [](Kind k) { return belongs(k) || k == Kind::other; })) {
                kind = Kind::behind;
                behind_.add(pixel(r, c));
            }
        });
    }

    bool doubtful(int64_t row, int64_t column) {
        Kind kind = at(row, column);
        if (kind == Kind::other) return false;
        if (!belongs(kind)) return any_around(row, column, kBand, belongs);
        return label(row, column) == frame_.background ||
               any_around(row, column, kBand, [](Kind k) { return !belongs(k); });
    }

    // By where its tone stands between those on both sides.
    bool mostly_thing(int64_t row, int64_t column) {
        Mean core, behind;
        around(row, column, kWindow, [&](int64_t r, int64_t c) {
            if (at(r, c) == Kind::core) core.add(pixel(r, c));
            if (at(r, c) == Kind::behind) behind.add(pixel(r, c));
        });
        Rgb from = (behind.count > 0 ? behind : behind_).value(),
            to = (core.count > 0 ? core : core_).value();
        double along = 0, whole = 0;
        for (size_t k = 0; k < 3; ++k) {
            along += (pixel(row, column)[k] - from[k]) * (to[k] - from[k]);
            whole += (to[k] - from[k]) * (to[k] - from[k]);
        }
        return 2 * along > whole;
    }

    std::vector<int64_t> largest_piece(std::vector<uint8_t> in) const {
        std::vector<int64_t> best, piece;
        for (size_t start = 0; start < in.size(); ++start) {
            if (in[start] == 0) continue;
            in[start] = 0;
            piece.assign(1, static_cast<int64_t>(start));
            for (size_t k = 0; k < piece.size(); ++k) {
                int64_t row = piece[k] / width_, column = piece[k] % width_;
                around(row, column, 1, [&](int64_t r, int64_t c) {
                    uint8_t& next = in[index(r, c)];
                    if (next == 0 || (r != row && c != column)) return;
                    next = 0;
                    piece.push_back(r * width_ + c);
                });
            }
            if (piece.size() > best.size()) best = piece;
        }
        return best;
    }

    const Frame& frame_;
    Color color_;
    int64_t top_, left_, height_, width_;
    std::vector<Kind> kinds_;
    Mean core_, behind_;
};

}  // namespace

void sharpen(std::vector<Region>& all, const uint8_t* rgb, const std::vector<uint8_t>& labels, int64_t height,
             int64_t width, Color background) {
    Frame frame{rgb, labels, height, width, background};
    std::vector<uint8_t> taken(labels.size());
    for (const Region& region : all)
        for (int32_t i : region.pixels) taken[static_cast<size_t>(i)] = 1;
    for (Region& region : all) {
        Crop crop(frame, region, taken);
        if (!crop.has_tones()) continue;
        std::vector<int32_t> covered = crop.covered();
        if (covered.empty()) continue;
        region.pixels = std::move(covered);
        region.measure(width);
    }
}

}  // namespace sana::world
