#include <algorithm>
#include <cmath>

#include "train/world/look.h"

namespace sana::world {

namespace {

double hue(double r, double g, double b) {
    double high = std::max({r, g, b}), chroma = high - std::min({r, g, b});
    if (chroma <= 0) return 0;
    double h = high == r ? (g - b) / chroma : high == g ? 2 + (b - r) / chroma : 4 + (r - g) / chroma;
    return h < 0 ? h + 6 : h;  // 0 .. 6
}

// What cells (row * width + column, row by row) fill of the convex hull of their squares.
double solidity_of(const std::vector<int32_t>& cells, int64_t width) {
    using Point = std::array<int64_t, 2>;
    std::vector<Point> points;
    for (int32_t i : cells)
        for (int64_t corner = 0; corner < 4; ++corner)
            points.push_back({i % width + corner % 2, i / width + corner / 2});
    std::sort(points.begin(), points.end());
    points.erase(std::unique(points.begin(), points.end()), points.end());
    auto turn = [](const Point& a, const Point& b, const Point& c) {
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
    };
    // Andrew's chains: below and above.
    double doubled = 0;
    for (int side : {1, -1}) {
        std::vector<Point> chain;
        for (const Point& p : points) {
            while (chain.size() > 1 && side * turn(chain[chain.size() - 2], chain.back(), p) <= 0)
                chain.pop_back();
            chain.push_back(p);
        }
        for (size_t k = 1; k < chain.size(); ++k)
            doubled +=
                side * static_cast<double>(chain[k - 1][0] * chain[k][1] - chain[k][0] * chain[k - 1][1]);
    }
    return 2 * static_cast<double>(cells.size()) / doubled;
}

// A shape as a picture: inside or not, over -1.3 .. 1.3 in units of its radius, blurred by a Gaussian and cut at a half:
// what is left of it when its edges are soft.
struct Stencil {
    static constexpr int kSide = 160;
    static constexpr double kReach = 1.3, kCell = 2 * kReach / kSide;
    std::vector<uint8_t> inside = std::vector<uint8_t>(kSide * kSide);
    double mass_x = 0, mass_y = 0;  // its centre of mass
    double area = 0;
    double solidity = 0;

    Stencil(Shape shape, double blur) {
        std::vector<float> cover(inside.size());
        for (int row = 0; row < kSide; ++row)
            for (int column = 0; column < kSide; ++column)
                cover[static_cast<size_t>(row * kSide + column)] =
                    distance_to(shape, place(column), place(row)) < 0;
        if (blur > 0) {
            cover = blurred(cover, blur, 1, kSide);
            cover = blurred(cover, blur, kSide, 1);
        }
        std::vector<int32_t> cells;
        for (int i = 0; i < kSide * kSide; ++i) {
            if (cover[static_cast<size_t>(i)] <= 0.5F) continue;
            inside[static_cast<size_t>(i)] = 1;
            mass_x += place(i % kSide);
            mass_y += place(i / kSide);
            cells.push_back(i);
        }
        double n = static_cast<double>(cells.size());
        mass_x /= n;
        mass_y /= n;
        area = n * kCell * kCell;
        solidity = solidity_of(cells, kSide);
    }

    static double place(int cell) { return (cell + 0.5) * kCell - kReach; }

    // Along lines whose cells are step apart.
    static std::vector<float> blurred(const std::vector<float>& in, double blur, int step, int line) {
        double deviation = blur / kCell;
        int reach = static_cast<int>(std::ceil(3 * deviation));
        std::vector<float> weights, out(in.size());
        float sum = 0;
        for (int d = -reach; d <= reach; ++d) {
            weights.push_back(static_cast<float>(std::exp(-d * d / (2 * deviation * deviation))));
            sum += weights.back();
        }
        for (int a = 0; a < kSide; ++a)
            for (int b = 0; b < kSide; ++b) {
                float value = 0;
                for (int d = std::max(-reach, -b); d <= std::min(reach, kSide - 1 - b); ++d)
                    value += weights[static_cast<size_t>(d + reach)] *
                             in[static_cast<size_t>(a * line + (b + d) * step)];
                out[static_cast<size_t>(a * line + b * step)] = value / sum;
            }
        return out;
    }

    bool at(double x, double y) const {
        int column = static_cast<int>(std::floor((x + kReach) / kCell)),
            row = static_cast<int>(std::floor((y + kReach) / kCell));
        return row >= 0 && row < kSide && column >= 0 && column < kSide &&
               inside[static_cast<size_t>(row * kSide + column)] != 0;
    }
};

const Stencil& stencil(Shape shape, int softness) {
    static const std::vector<Stencil> all = [] {
        std::vector<Stencil> list;
        for (int s = 0; s < kShapes; ++s)
            for (int k = 0; k < kSoftness; ++k) list.emplace_back(static_cast<Shape>(s), k * kSoftnessStep);
        return list;
    }();
    return all[static_cast<size_t>(shape) * kSoftness + static_cast<size_t>(softness)];
}

}  // namespace

Color color_at(const uint8_t* rgb) {
    static const std::array<double, kColors> hues = [] {
        std::array<double, kColors> h{};
        for (int c = 0; c < kColors; ++c) {
            Rgb p = paint(static_cast<Color>(c));
            h[static_cast<size_t>(c)] = hue(p[0], p[1], p[2]);
        }
        return h;
    }();
    double r = rgb[0], g = rgb[1], b = rgb[2];
    double high = std::max({r, g, b}), chroma = high - std::min({r, g, b});
    // The darkest chromatic tone drawn has a chroma of 57; the darkest white is 136 * 0.8, the lightest black 90.
    if (chroma < std::max(25.0, 0.2 * high)) return high > 100 ? Color::white : Color::black;
    double h = hue(r, g, b), nearest = 9;
    Color best{};
    for (int c = 0; c < kColors - 2; ++c) {
        double d = std::abs(h - hues[static_cast<size_t>(c)]);
        d = std::min(d, 6 - d);
        if (d < nearest) {
            nearest = d;
            best = static_cast<Color>(c);
        }
    }
    return best;
}

std::vector<Region> regions(const std::vector<uint8_t>& labels, int64_t height, int64_t width,
                            Color background, int64_t min_area) {
    auto other = [&](int64_t i) {
        return labels[static_cast<size_t>(i)] != static_cast<uint8_t>(background);
    };
    // A pixel belongs to a thing when most of its neighbourhood does: specks go, edges stay where they are.
    std::vector<uint8_t> mask(labels.size());
    for (int64_t row = 0; row < height; ++row) {
        for (int64_t column = 0; column < width; ++column) {
            int count = 0, all = 0;
            for (int64_t r = std::max<int64_t>(0, row - 1); r <= std::min(height - 1, row + 1); ++r)
                for (int64_t c = std::max<int64_t>(0, column - 1); c <= std::min(width - 1, column + 1);
                     ++c) {
                    ++all;
                    count += other(r * width + c);
                }
            mask[static_cast<size_t>(row * width + column)] = 2 * count > all;
        }
    }
    std::vector<Region> found;
    std::vector<int32_t> stack;
    for (int64_t start = 0; start < height * width; ++start) {
        if (mask[static_cast<size_t>(start)] != 1) continue;
        Region region;
        mask[static_cast<size_t>(start)] = 2;
        stack.push_back(static_cast<int32_t>(start));
        while (!stack.empty()) {
            int32_t i = stack.back();
            stack.pop_back();
            region.pixels.push_back(i);
            int64_t row = i / width, column = i % width;
            auto visit = [&](int64_t r, int64_t c) {
                if (r < 0 || r >= height || c < 0 || c >= width ||
                    mask[static_cast<size_t>(r * width + c)] != 1)
                    return;
                mask[static_cast<size_t>(r * width + c)] = 2;
                stack.push_back(static_cast<int32_t>(r * width + c));
            };
            visit(row - 1, column);
            visit(row + 1, column);
            visit(row, column - 1);
            visit(row, column + 1);
        }
        if (static_cast<int64_t>(region.pixels.size()) < min_area) continue;
        // Edges mix with what is behind, so only pixels amid others of the region speak for its colour.
        std::array<int64_t, kColors> votes{};
        for (int32_t i : region.pixels) {
            int64_t row = i / width, column = i % width;
            bool amid = row > 0 && row + 1 < height && column > 0 && column + 1 < width;
            for (int64_t d : {-width, width, int64_t{-1}, int64_t{1}})
                amid = amid && mask[static_cast<size_t>(i + d)] == 2;
            if (other(i)) votes[labels[static_cast<size_t>(i)]] += amid ? 8 : 1;
        }
        region.measure(width);
        region.color = static_cast<Color>(std::max_element(votes.begin(), votes.end()) - votes.begin());
        found.push_back(std::move(region));
    }
    std::stable_sort(found.begin(), found.end(),
                     [](const Region& a, const Region& b) { return a.pixels.size() > b.pixels.size(); });
    return found;
}

double overlap(const Region& region, int64_t width, Shape shape, int softness, double angle) {
    double area = static_cast<double>(region.pixels.size());
    const Stencil& s = stencil(shape, softness);
    double radius = std::sqrt(area / s.area);
    double c = std::cos(angle) / radius, n = std::sin(angle) / radius;
    int64_t both = 0;
    for (int32_t i : region.pixels) {
        double dx = static_cast<double>(i % width) - region.x, dy = static_cast<double>(i / width) - region.y;
        both += s.at(c * dx + n * dy + s.mass_x, -n * dx + c * dy + s.mass_y);
    }
    // Equal areas: the union is twice the area less what both cover.
    return static_cast<double>(both) / (2 * area - static_cast<double>(both));
}

double likeness(const Region& region, Shape shape, int softness) {
    double own = stencil(shape, softness).solidity;
    return std::min(own, region.solidity) / std::max(own, region.solidity);
}

Pose pose_of(const Region& region, Shape shape, int softness, double angle) {
    const Stencil& s = stencil(shape, softness);
    double radius = std::sqrt(static_cast<double>(region.pixels.size()) / s.area);
    double c = std::cos(angle) * radius, n = std::sin(angle) * radius;
    return {region.x - (c * s.mass_x - n * s.mass_y), region.y - (n * s.mass_x + c * s.mass_y), radius,
            angle};
}

void Region::measure(int64_t width) {
    x = y = 0;
    for (int32_t i : pixels) {
        x += static_cast<double>(i % width);
        y += static_cast<double>(i / width);
    }
    x /= static_cast<double>(pixels.size());
    y /= static_cast<double>(pixels.size());
    solidity = solidity_of(pixels, width);
}

}  // namespace sana::world
