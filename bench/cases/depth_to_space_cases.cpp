// depth_to_space in both orders of the offsets, with shortcuts narrower than x and frames left out.
#include "bench/case.h"
#include "bench/values.h"
#include "ops/depth_to_space.h"

namespace sana::cases {

namespace {

Instance instance(const Shape& x_shape, int64_t shortcut, const DepthToSpaceOptions& o) {
    int64_t frames = o.stride[0], rows = o.stride[1], columns = o.stride[2];
    Shape shape{x_shape[0], x_shape[1] * frames - o.drop, x_shape[2] * rows, x_shape[3] * columns,
                x_shape[4] / (frames * rows * columns)};
    Shape shortcut_shape = x_shape;
    shortcut_shape[4] = shortcut;
    return {
        .name = join("x", x_shape, " stride ", frames, ",", rows, ",", columns,
                     shortcut > 0 ? join(" shortcut ", shortcut) : "",
                     o.drop > 0 ? join(" drop ", o.drop) : "", o.rows_fastest ? " rows fastest" : ""),
        .inputs =
            [=](Generator& g) {
                Inputs in{g.normal(x_shape), {}};
                if (shortcut > 0) in[1] = g.normal(shortcut_shape);
                return in;
            },
        .run = [=](const Tensors& in) { return Tensors{depth_to_space(in[0], in[1], o)}; },
        .reference =
            [=](const Tensors& in) {
                Values x(in[0]), extra(in[1]), y(shape);
                auto [R, P, Q] = o.stride;
                for (int64_t b = 0; b < x.dim(0); ++b)
                    for (int64_t t = 0; t < x.dim(1) * R; ++t)
                        for (int64_t h = 0; h < x.dim(2) * P; ++h)
                            for (int64_t w = 0; w < x.dim(3) * Q; ++w)
                                for (int64_t c = 0; c < y.dim(4); ++c) {
                                    if (t < o.drop) continue;
                                    int64_t k = o.rows_fastest ? ((c * R + t % R) * Q + w % Q) * P + h % P
                                                               : ((c * R + t % R) * P + h % P) * Q + w % Q;
                                    double sum = x(b, t / R, h / P, w / Q, k);
                                    if (shortcut > 0) sum += extra(b, t / R, h / P, w / Q, k % shortcut);
                                    y(b, t - o.drop, h, w, c) = sum;
                                }
                return Tensors{y.tensor()};
            },
    };
}

}  // namespace

std::vector<Case> depth_to_space_cases() {
    Case out{.name = "depth_to_space", .bounds = {1e-7, kRoundBf16, kRoundF16}};
    out.tests = {
        instance({1, 1, 1, 1, 1}, 0, {}),
        instance({2, 3, 3, 5, 24}, 12, {.stride = {2, 2, 2}, .drop = 1}),
        instance({2, 2, 3, 5, 128}, 64, {.stride = {2, 2, 2}, .drop = 1}),
        instance({1, 3, 2, 3, 256}, 128, {.stride = {2, 2, 2}}),
        instance({1, 2, 3, 2, 64}, 0, {.stride = {2, 2, 2}}),
        instance({1, 2, 3, 5, 16}, 8, {.stride = {1, 2, 2}}),
        instance({1, 2, 5, 3, 6}, 3, {.stride = {2, 1, 1}, .drop = 1}),
        instance({2, 2, 3, 5, 48}, 0, {.stride = {1, 4, 4}, .rows_fastest = true}),
        instance({1, 2, 3, 2, 12}, 4, {.stride = {2, 3, 1}, .rows_fastest = true}),
    };
    out.bench_cpu = {instance({1, 5, 22, 40, 1024}, 256, {.stride = {2, 2, 2}, .drop = 1})};
    out.bench_gpu = {instance({1, 41, 88, 160, 1024}, 256, {.stride = {2, 2, 2}, .drop = 1}),
                     instance({1, 81, 176, 320, 48}, 0, {.stride = {1, 4, 4}, .rows_fastest = true})};
    return {out};
}

}  // namespace sana::cases
