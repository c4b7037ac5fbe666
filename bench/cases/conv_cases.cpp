// conv3d with every padding, stride, past and residual; upsample_nearest.
#include "bench/case.h"
#include "bench/values.h"
#include "ops/conv.h"

namespace sana::cases {

namespace {

struct Sizes {
    Shape x;                          // [B,T,H,W,C]
    int64_t out = 1;                  // O
    std::array<int64_t, 3> kernel{};  // KT, KH, KW
    int64_t past = 0;                 // frames
    bool bias = true;
    bool residual = false;
};

std::string triple(const char* what, const std::array<int64_t, 3>& v) {
    return v == std::array<int64_t, 3>{} ? "" : join(" ", what, v[0], ",", v[1], ",", v[2]);
}

Shape result_shape(const Sizes& s, const Conv3dOptions& o) {
    Shape shape{s.x[0], 0, 0, 0, s.out};
    for (int i = 0; i < 3; ++i) {
        size_t a = static_cast<size_t>(i);
        int64_t size = s.x[i + 1] * (o.upsample && i > 0 ? 2 : 1) + (i == 0 ? s.past : 0) + o.pad_before[a] +
                       o.pad_after[a];
        shape[i + 1] = (size - s.kernel[a]) / o.stride[a] + 1;
    }
    return shape;
}

// Where a position of the padded axis reads; -1: a zero.
int64_t source(int64_t position, int64_t size, PadMode mode) {
    if (position >= 0 && position < size) return position;
    if (mode == PadMode::zeros) return -1;
    if (mode == PadMode::replicate) return position < 0 ? 0 : size - 1;
    return position < 0 ? -position : 2 * (size - 1) - position;
}

Tensors formula(const Sizes& s, const Conv3dOptions& o, const Tensors& in) {
    Values x(in[0]), w(in[1]), bias(in[2]), past(in[3]), residual(in[4]), y(result_shape(s, o));
    int64_t frames = s.past + s.x[1], scale = o.upsample ? 2 : 1;
    for (int64_t b = 0; b < y.dim(0); ++b)
        for (int64_t t = 0; t < y.dim(1); ++t)
            for (int64_t h = 0; h < y.dim(2); ++h)
                for (int64_t u = 0; u < y.dim(3); ++u)
                    for (int64_t c = 0; c < s.out; ++c) {
                        double sum = s.bias ? bias(c) : 0;
                        for (int64_t dt = 0; dt < s.kernel[0]; ++dt)
                            for (int64_t dh = 0; dh < s.kernel[1]; ++dh)
                                for (int64_t du = 0; du < s.kernel[2]; ++du) {
                                    int64_t ft =
                                        source(t * o.stride[0] + dt - o.pad_before[0], frames, o.time_mode);
                                    int64_t fh = source(h * o.stride[1] + dh - o.pad_before[1],
                                                        s.x[2] * scale, o.space_mode);
                                    int64_t fu = source(u * o.stride[2] + du - o.pad_before[2],
                                                        s.x[3] * scale, o.space_mode);
                                    if (ft < 0 || fh < 0 || fu < 0) continue;
                                    fh /= scale;
                                    fu /= scale;
                                    for (int64_t i = 0; i < s.x[4]; ++i) {
                                        double value = ft < s.past ? past(b, ft, fh, fu, i)
                                                                   : x(b, ft - s.past, fh, fu, i);
                                        sum += value * w(c, dt, dh, du, i);
                                    }
                                }
                        y(b, t, h, u, c) = sum + (s.residual ? residual(b, t, h, u, c) : 0);
                    }
    return {y.tensor()};
}

// Inputs: x, weight, bias, past, residual.
Instance instance(const Sizes& s, const Conv3dOptions& o) {
    Shape shape = result_shape(s, o);
    int64_t taps = s.kernel[0] * s.kernel[1] * s.kernel[2];
    return {
        .name =
            join("x", s.x, " O", s.out, triple("kernel ", s.kernel), triple("before ", o.pad_before),
                 triple("after ", o.pad_after), triple("stride ", o.stride),
                 o.time_mode == PadMode::replicate ? " replicate" : "",
                 o.space_mode == PadMode::reflect ? " reflect" : "", s.past > 0 ? join(" past ", s.past) : "",
                 s.bias ? "" : " no bias", s.residual ? " residual" : "", o.upsample ? " upsample" : ""),
        .inputs =
            [=](Generator& g) {
                double deviation = 1 / std::sqrt(static_cast<double>(taps * s.x[4]));
                Inputs in{g.normal(s.x),
                          g.normal({s.out, s.kernel[0], s.kernel[1], s.kernel[2], s.x[4]}, deviation),
                          {},
                          {},
                          {}};
                if (s.bias) in[2] = g.normal({s.out});
                if (s.past > 0) in[3] = g.normal({s.x[0], s.past, s.x[2], s.x[3], s.x[4]});
                if (s.residual) in[4] = g.normal(shape);
                return in;
            },
        .run =
            [=](const Tensors& in) {
                Conv3dOptions options = o;
                options.past = in[3];
                options.residual = in[4];
                return Tensors{conv3d(in[0], in[1], in[2], options)};
            },
        .reference = [=](const Tensors& in) { return formula(s, o, in); },
        .flops = 2.0 * static_cast<double>(shape.numel() * taps * s.x[4]),
    };
}

Instance upsample(const Shape& shape) {
    return {
        .name = join("x", shape),
        .inputs = [=](Generator& g) { return Inputs{g.normal(shape)}; },
        .run = [](const Tensors& in) { return Tensors{upsample_nearest(in[0])}; },
        .reference =
            [=](const Tensors& in) {
                Values x(in[0]), y(Shape{shape[0], shape[1], 2 * shape[2], 2 * shape[3], shape[4]});
                for (int64_t b = 0; b < y.dim(0); ++b)
                    for (int64_t t = 0; t < y.dim(1); ++t)
                        for (int64_t h = 0; h < y.dim(2); ++h)
                            for (int64_t w = 0; w < y.dim(3); ++w)
                                for (int64_t c = 0; c < y.dim(4); ++c)
                                    y(b, t, h, w, c) = x(b, t, h / 2, w / 2, c);
                return Tensors{y.tensor()};
            },
    };
}

}  // namespace

std::vector<Case> conv_cases() {
    // fp32: sums of up to 27 * 65 products. 16 bit: a library may round before the residual is added.
    Case out{.name = "conv3d", .bounds = {1e-6, 1.4 * kRoundBf16, 1.4 * kRoundF16}};
    const std::array<int64_t, 3> cube{3, 3, 3}, plane{1, 3, 3}, line{3, 1, 1}, point{1, 1, 1};
    out.tests = {
        instance({{1, 1, 1, 1, 1}, 1, point}, {}),
        instance({{2, 3, 5, 7, 3}, 5, point}, {}),
        instance({{2, 4, 5, 6, 8}, 16, cube}, {}),  // no padding at all
        instance({{2, 4, 5, 6, 8}, 7, cube}, {.pad_before = {1, 1, 1}, .pad_after = {1, 1, 1}}),
        instance({{1, 3, 5, 6, 65}, 33, cube}, {.pad_before = {2, 1, 1}, .pad_after = {0, 1, 1}}),  // causal
        instance({{1, 3, 5, 6, 8}, 16, cube, 2}, {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}}),
        instance({{2, 1, 5, 6, 8}, 16, cube, 1, true, true},
                 {.pad_before = {1, 1, 1}, .pad_after = {0, 1, 1}}),
        instance({{1, 3, 4, 4, 16}, 16, cube, 0, false, true},
                 {.pad_before = {1, 1, 1}, .pad_after = {1, 1, 1}}),
        instance({{1, 3, 5, 6, 8}, 12, cube},
                 {.pad_before = {2, 1, 1}, .pad_after = {0, 1, 1}, .time_mode = PadMode::replicate}),
        instance({{2, 1, 5, 6, 8}, 12, cube},
                 {.pad_before = {1, 1, 1}, .pad_after = {1, 1, 1}, .time_mode = PadMode::replicate}),
        instance({{1, 2, 3, 4, 8}, 12, cube, 2},
                 {.pad_before = {1, 0, 0}, .pad_after = {1, 0, 0}, .time_mode = PadMode::replicate}),
        instance({{1, 3, 5, 6, 8}, 12, cube},
                 {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}, .space_mode = PadMode::reflect}),
        instance({{1, 2, 3, 4, 5}, 6, {1, 5, 5}},
                 {.pad_before = {0, 2, 2}, .pad_after = {0, 2, 2}, .space_mode = PadMode::reflect}),
        instance({{2, 2, 3, 4, 5}, 6, cube, 1, true, true}, {.pad_before = {1, 1, 1},
                                                             .pad_after = {1, 1, 1},
                                                             .time_mode = PadMode::replicate,
                                                             .space_mode = PadMode::reflect}),
        instance({{1, 2, 6, 8, 8}, 8, plane}, {.stride = {1, 2, 2}, .pad_after = {0, 1, 1}}),  // asymmetric
        instance({{1, 2, 7, 9, 8}, 8, plane}, {.stride = {1, 2, 2}, .pad_after = {0, 1, 1}}),
        instance({{1, 5, 4, 4, 8}, 8, line, 0}, {.stride = {2, 1, 1}}),
        instance({{1, 4, 4, 4, 8}, 8, line, 1}, {.stride = {2, 1, 1}}),
        instance({{2, 5, 7, 9, 3}, 4, cube, 0, true, true},
                 {.stride = {2, 2, 2}, .pad_before = {2, 1, 1}, .pad_after = {0, 1, 1}}),
        instance({{1, 4, 6, 8, 16}, 8, {1, 2, 2}}, {.stride = {1, 2, 2}}),  // a patch embedding
        instance({{1, 1, 1, 1, 7}, 3, cube},
                 {.pad_before = {1, 1, 1}, .pad_after = {1, 1, 1}}),  // mostly padding
        instance({{1, 2, 3, 4, 5}, 6, plane},
                 {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}, .upsample = true}),
        instance({{1, 2, 3, 4, 5}, 6, {3, 2, 2}, 1, true, true}, {.pad_before = {1, 1, 0},
                                                                  .pad_after = {0, 0, 1},
                                                                  .space_mode = PadMode::reflect,
                                                                  .upsample = true}),
        instance({{2, 2, 9, 10, 64}, 96, plane},
                 {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}, .upsample = true}),
        // Channels in 32s, several tiles of 8 or 16 positions each way.
        instance({{1, 3, 17, 10, 32}, 40, cube, 2, true, true},
                 {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}}),
        instance({{1, 1, 5, 19, 64}, 136, cube},
                 {.pad_before = {1, 1, 1}, .pad_after = {1, 1, 1}, .time_mode = PadMode::replicate}),
        instance({{1, 2, 9, 18, 96}, 3, cube}, {.pad_before = {2, 1, 1}, .pad_after = {0, 1, 1}}),
        instance({{1, 1, 17, 9, 96}, 96, cube, 1, false}, {.pad_before = {1, 1, 1}, .pad_after = {0, 1, 1}}),
        instance({{2, 1, 9, 20, 64}, 128, plane, 0, true, true},
                 {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}}),
        instance({{1, 1, 17, 33, 32}, 32, cube, 2, true, true},
                 {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}, .space_mode = PadMode::reflect}),
        instance({{1, 2, 18, 7, 64}, 48, cube}, {.pad_before = {1, 1, 1},
                                                 .pad_after = {1, 1, 1},
                                                 .time_mode = PadMode::replicate,
                                                 .space_mode = PadMode::reflect}),
        instance({{1, 2, 9, 9, 64}, 64, cube}, {.pad_before = {1, 1, 1},
                                                .pad_after = {1, 1, 1},
                                                .time_mode = PadMode::replicate,
                                                .space_mode = PadMode::reflect}),
    };
    out.bench_cpu = {
        instance({{1, 1, 60, 104, 384}, 384, cube, 2}, {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}}),
        instance({{1, 4, 120, 208, 96}, 96, cube, 2, true, true},
                 {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}})};
    const Conv3dOptions same{.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}};
    const Conv3dOptions around{
        .pad_before = {1, 1, 1}, .pad_after = {1, 1, 1}, .time_mode = PadMode::replicate};
    out.bench_gpu = {instance({{1, 8, 60, 104, 384}, 384, cube, 2, true, true}, same),
                     instance({{1, 16, 120, 208, 384}, 384, cube, 2, true, true}, same),
                     instance({{1, 16, 240, 416, 192}, 192, cube, 2, true, true}, same),
                     instance({{1, 8, 480, 832, 96}, 96, cube, 2, true, true}, same),
                     instance({{1, 8, 480, 832, 96}, 3, cube, 2}, same),
                     instance({{1, 8, 240, 416, 192}, 96, plane},
                              {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}, .upsample = true}),
                     instance({{1, 11, 22, 40, 1024}, 1024, cube, 0, true, true}, around),
                     instance({{1, 21, 44, 80, 512}, 512, cube, 0, true, true}, around),
                     instance({{1, 16, 88, 160, 256}, 256, cube, 0, true, true}, around),
                     instance({{1, 16, 88, 160, 256}, 1024, cube}, around),
                     instance({{1, 16, 176, 320, 128}, 128, cube, 0, true, true}, around),
                     instance({{1, 16, 176, 320, 128}, 48, cube}, around)};

    Case up{.name = "upsample_nearest", .bounds = {0, 0, 0}};  // moves bytes
    up.tests = {upsample({1, 1, 1, 1, 1}), upsample({2, 3, 5, 7, 3}), upsample({1, 2, 4, 4, 96})};
    up.bench_cpu = {upsample({1, 1, 120, 208, 192})};
    up.bench_gpu = {upsample({1, 4, 240, 416, 192})};
    return {out, up};
}

}  // namespace sana::cases
