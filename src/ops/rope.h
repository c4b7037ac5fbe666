// Rotary position embedding: tables and the half-split rotation. Tables are fp32, computed in fp64.
#pragma once

#include "core/tensor.h"

namespace sana {

// cos and sin [N, D/2]: angle(n, j) of pair j of a head of width D at position n.
struct Rope {
    Tensor cos, sin;
};

// Positions 0..L-1; angle = n * theta^(-2j/D).
// bf16_frequencies: theta^(-2j/D) rounded to bf16, as a reference module has them after a cast to bf16.
Rope rope_1d(int64_t length, int64_t head_dim, double theta, Device device, bool bf16_frequencies = false);

// Tokens of a grid (T slowest), position (t_start + t, h, w). A head's pairs are split over the axes: width
// 2*floor(D/6) for h and for w, the rest for t (first); angle = position * theta^(-2j/m) with each axis' own width m.
// Source: SANA-Video (diffusers SanaVideoTransformer3DModel).
struct Grid {
    int64_t t = 1, h = 1, w = 1;
    int64_t tokens() const { return t * h * w; }
    bool operator==(const Grid&) const = default;
};
Rope rope_3d(Grid grid, int64_t head_dim, double theta, int64_t t_start, Device device);

// Throws unless the tables are dense, fp32 and where x is; `op` begins the message.
void check_rope(const char* op, const Rope& rope, const Tensor& x);

// Half-split rotation of every head: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin), where element d pairs with
// d + D/2.   x [B,N,A*D] -> the same shape. (The pairs of the diffusion transformer are adjacent; its rotation is part
// of linear_attention.)
Tensor rotate_half(const Tensor& x, const Rope& rope, int64_t heads);

struct RotateHalfArgs {
    const Tensor& x;
    const Rope& rope;
    int64_t heads;
    Tensor& y;
};

}  // namespace sana
