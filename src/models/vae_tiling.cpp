#include "models/vae.h"
#include "ops/pointwise.h"

namespace sana {

namespace {

// b's first `extent` rows (axis 2) or columns (axis 3) fade in over the end of a's.
Tensor blend(const Tensor& a, const Tensor& b, int axis, int64_t extent) {
    extent = std::min({extent, a.dim(axis), b.dim(axis)});
    if (extent <= 0) return b;
    std::vector<Tensor> parts;
    for (int64_t y = 0; y < extent; ++y) {
        double weight = static_cast<double>(y) / static_cast<double>(extent);
        parts.push_back(combine(
            {{1 - weight, slice(a, axis, a.dim(axis) - extent + y, 1)}, {weight, slice(b, axis, y, 1)}}));
    }
    if (extent < b.dim(axis)) parts.push_back(slice(b, axis, extent, b.dim(axis) - extent));
    return concat(parts, axis);
}

// Where tiles start along an axis: at multiples of the stride.
std::vector<int64_t> tile_starts(int64_t size, const TileGrid& grid) {
    std::vector<int64_t> starts{0};
    for (int64_t at = grid.stride; at <= size - grid.smallest; at += grid.stride) starts.push_back(at);
    return starts;
}

}  // namespace

Tensor blend_tiles(const Tensor& x, const TileGrid& grid, const std::function<Tensor(const Tensor&)>& f,
                   const std::function<void(int64_t done, int64_t total)>& progress) {
    check_input(grid.stride > 0 && grid.stride <= grid.tile, "tiles of ", grid.tile, " with a stride of ",
                grid.stride,
                ": a tile must be at least one latent cell and the stride between one cell and the tile");
    auto scaled = [&](int64_t n) { return grid.factor > 0 ? n * grid.factor : n / -grid.factor; };
    int64_t overlap = scaled(grid.tile) - scaled(grid.stride), done = 0;
    std::vector<int64_t> tops = tile_starts(x.dim(2), grid), lefts = tile_starts(x.dim(3), grid);
    std::vector<Tensor> above, rows;
    for (int64_t top : tops) {
        bool last_row = top == tops.back();
        int64_t height = last_row ? x.dim(2) - top : std::min(grid.tile, x.dim(2) - top);
        std::vector<Tensor> tiles, cut;
        for (int64_t left : lefts) {
            bool last = left == lefts.back();
            int64_t width = last ? x.dim(3) - left : std::min(grid.tile, x.dim(3) - left);
            Tensor result = f(slice(slice(x, 2, top, height), 3, left, width));
            // The neighbours are the tiles as blended so far.
            if (!above.empty()) result = blend(above[tiles.size()], result, 2, overlap);
            if (!tiles.empty()) result = blend(tiles.back(), result, 3, overlap);
            tiles.push_back(result);
            Tensor kept = slice(result, 2, 0, last_row ? result.dim(2) : scaled(grid.stride));
            cut.push_back(slice(kept, 3, 0, last ? kept.dim(3) : scaled(grid.stride)));
            if (progress) progress(++done, static_cast<int64_t>(tops.size() * lefts.size()));
        }
        rows.push_back(concat(cut, 3));
        above = tiles;
    }
    return concat(rows, 2);
}

}  // namespace sana
