#include "models/vae.h"

namespace sana {

namespace {

// b's first `extent` rows (axis 2) or columns (axis 3) fade in over the end of a's.
Tensor blend(const Tensor& a, const Tensor& b, int axis, int64_t extent) {
    extent = std::min({extent, a.dim(axis), b.dim(axis)});
    Tensor out = b.to(DType::F32).clone(), from = a.to(DType::F32).contiguous();
    int64_t inner = axis == 2 ? b.dim(3) * b.dim(4) : b.dim(4);
    int64_t outer = b.numel() / (b.dim(axis) * inner);
    for (int64_t o = 0; o < outer; ++o) {
        for (int64_t y = 0; y < extent; ++y) {
            float weight = static_cast<float>(y) / static_cast<float>(extent);
            const float* p = from.data<float>() + (o * a.dim(axis) + a.dim(axis) - extent + y) * inner;
            float* q = out.data<float>() + (o * b.dim(axis) + y) * inner;
            for (int64_t i = 0; i < inner; ++i) q[i] = p[i] * (1 - weight) + q[i] * weight;
        }
    }
    return out.to(b.dtype());
}

}  // namespace

Tensor blend_tiles(const Tensor& x, int64_t tile, int64_t stride, int64_t factor,
                   const std::function<Tensor(const Tensor&)>& f) {
    check(stride > 0 && stride <= tile, "a tile of ", tile, " with a stride of ", stride);
    auto scaled = [&](int64_t n) { return factor > 0 ? n * factor : n / -factor; };
    int64_t overlap = scaled(tile) - scaled(stride);
    std::vector<Tensor> above, rows;
    for (int64_t h = 0; h < x.dim(2); h += stride) {
        std::vector<Tensor> tiles, cut;
        for (int64_t w = 0; w < x.dim(3); w += stride) {
            int64_t height = std::min(tile, x.dim(2) - h), width = std::min(tile, x.dim(3) - w);
            Tensor result = f(slice(slice(x, 2, h, height), 3, w, width));
            // The neighbours are the tiles as blended so far.
            if (!above.empty()) result = blend(above[tiles.size()], result, 2, overlap);
            if (!tiles.empty()) result = blend(tiles.back(), result, 3, overlap);
            tiles.push_back(result);
            Tensor kept = slice(result, 2, 0, std::min(scaled(stride), result.dim(2)));
            cut.push_back(slice(kept, 3, 0, std::min(scaled(stride), kept.dim(3))));
        }
        rows.push_back(concat(cut, 3));
        above = tiles;
    }
    return concat(rows, 2);
}

}  // namespace sana
