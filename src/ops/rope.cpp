#include "ops/rope.h"

#include <cmath>

#include "ops/gradients.h"
#include "ops/kernels.h"

namespace sana {

namespace {

// Angles of one axis: pairs [first, first + width/2) of row n get position(n) * theta^(-2j/width).
template <class Position>
void fill_axis(const Rope& rope, int64_t first, int64_t width, double theta, Position position,
               bool bf16_frequencies = false) {
    int64_t rows = rope.cos.dim(0), pairs = rope.cos.dim(1);
    float* cosines = rope.cos.data<float>();
    float* sines = rope.sin.data<float>();
    for (int64_t j = 0; j < width / 2; ++j) {
        double omega = std::pow(theta, -2.0 * static_cast<double>(j) / static_cast<double>(width));
        if (bf16_frequencies) omega = bf16(static_cast<float>(omega));
        for (int64_t n = 0; n < rows; ++n) {
            double angle = static_cast<double>(position(n)) * omega;
            cosines[n * pairs + first + j] = static_cast<float>(std::cos(angle));
            sines[n * pairs + first + j] = static_cast<float>(std::sin(angle));
        }
    }
}

Rope empty_rope(int64_t rows, int64_t head_dim) {
    check(head_dim % 2 == 0, "rope: head width ", head_dim, " must be even");
    return {empty({rows, head_dim / 2}, DType::F32), empty({rows, head_dim / 2}, DType::F32)};
}

// Angles need fp64: tables are made in the host's memory and sent.
Rope on_device(const Rope& rope, Device device) { return {rope.cos.to(device), rope.sin.to(device)}; }

}  // namespace

Rope rope_1d(int64_t length, int64_t head_dim, double theta, Device device, bool bf16_frequencies) {
    Rope rope = empty_rope(length, head_dim);
    fill_axis(
        rope, 0, head_dim, theta, [](int64_t n) { return n; }, bf16_frequencies);
    return on_device(rope, device);
}

Rope rope_3d(Grid grid, int64_t head_dim, double theta, int64_t t_start, Device device) {
    Rope rope = empty_rope(grid.tokens(), head_dim);
    int64_t side = 2 * (head_dim / 6), time = head_dim - 2 * side;
    check(time % 2 == 0, "rope: head width ", head_dim, " cannot be split over three axes");
    fill_axis(rope, 0, time, theta, [&](int64_t n) { return t_start + n / (grid.h * grid.w); });
    fill_axis(rope, time / 2, side, theta, [&](int64_t n) { return n / grid.w % grid.h; });
    fill_axis(rope, (time + side) / 2, side, theta, [&](int64_t n) { return n % grid.w; });
    return on_device(rope, device);
}

void check_rope(const char* op, const Rope& rope, const Tensor& x) {
    for (const Tensor* table : {&rope.cos, &rope.sin}) {
        check(table->dtype() == DType::F32 && table->dense(), op, ": rope table ", *table,
              " must be dense and fp32");
        check_device(op, *table, x);
    }
}

Tensor rotate_half(const Tensor& x, const Rope& rope, int64_t heads) {
    DType dtype = same_dtype("rotate_half", {&x});
    Dims d = bind_op("rotate_half", {{x, "x[B,N,C]"}, {rope.cos, "cos[N,P]"}, {rope.sin, "sin[N,P]"}});
    check_rope("rotate_half", rope, x);
    check(heads > 0 && d['C'] == heads * 2 * d['P'], "rotate_half: ", heads, " heads of width ", 2 * d['P'],
          " in ", x);
    Tensor y = empty(x.shape(), dtype, x.device());
    launch("rotate_half", &Kernels::rotate_half, x.device(), RotateHalfArgs{x, rope, heads, y});
    record_rotate_half(x, rope, heads, y);
    return y;
}

}  // namespace sana
