// The convolutions of the feed-forward part: depthwise_glu and temporal_conv.
#include "bench/case.h"
#include "bench/values.h"
#include "ops/conv.h"

namespace sana::cases {

namespace {

// x [B,T,H,W,2F]
Instance glu(const Shape& shape, bool bias = true, double deviation = 1) {
    int64_t half = shape[4] / 2;
    return {
        .name = join("x", shape, bias ? "" : " no bias", deviation != 1 ? join(" of ", deviation) : ""),
        .inputs =
            [=](Generator& g) {
                return Inputs{g.normal(shape, deviation), g.normal({3, 3, 2 * half}, 0.4),
                              bias ? g.normal({2 * half}) : Input{}};
            },
        .run = [](const Tensors& in) { return Tensors{depthwise_glu(in[0], in[1], in[2])}; },
        .reference =
            [=](const Tensors& in) {
                Values x(in[0]), w(in[1]), b(in[2]), y(Shape{shape[0], shape[1], shape[2], shape[3], half});
                auto conv = [&](int64_t n, int64_t t, int64_t h, int64_t u, int64_t c) {
                    double sum = bias ? b(c) : 0;
                    for (int64_t i = 0; i < 3; ++i) {
                        for (int64_t j = 0; j < 3; ++j) {
                            int64_t row = h + i - 1, column = u + j - 1;
                            if (row < 0 || row >= shape[2] || column < 0 || column >= shape[3]) continue;
                            sum += w(i, j, c) * activated(Activation::silu, x(n, t, row, column, c));
                        }
                    }
                    return sum;
                };
                for (int64_t n = 0; n < shape[0]; ++n)
                    for (int64_t t = 0; t < shape[1]; ++t)
                        for (int64_t h = 0; h < shape[2]; ++h)
                            for (int64_t u = 0; u < shape[3]; ++u)
                                for (int64_t c = 0; c < half; ++c)
                                    y(n, t, h, u, c) =
                                        conv(n, t, h, u, c) *
                                        activated(Activation::silu, conv(n, t, h, u, c + half));
                return Tensors{y.tensor()};
            },
        .flops = 26.0 * static_cast<double>(shape.numel()),
    };
}

struct Temporal {
    Shape x;  // [B,T,S,C]
    bool past = false;
    int64_t groups = 0;
    bool residual = false;
};

// Inputs: x, weight, past, gate, residual.
Instance temporal(const Temporal& s) {
    int64_t batch = s.x[0], frames = s.x[1], positions = s.x[2], channels = s.x[3];
    return {
        .name = join("x", s.x, s.past ? " past" : "", s.groups > 0 ? join(" gate G", s.groups) : "",
                     s.residual ? " residual" : ""),
        .inputs =
            [=](Generator& g) {
                double deviation = 1 / std::sqrt(3.0 * static_cast<double>(channels));
                Inputs in{g.normal(s.x), g.normal({channels, 3, channels}, deviation), {}, {}, {}};
                if (s.past) in[2] = g.normal({batch, 1, positions, channels});
                if (s.groups > 0) in[3] = strided(g.normal({batch, s.groups, channels}));
                if (s.residual) in[4] = strided(g.normal(s.x));
                return in;
            },
        .run =
            [=](const Tensors& in) {
                return Tensors{temporal_conv(in[0], in[1], in[2], {Activation::none, in[3], in[4]})};
            },
        .reference =
            [=](const Tensors& in) {
                Values x(in[0]), w(in[1]), past(in[2]), gate(in[3]), residual(in[4]), y(s.x);
                for (int64_t b = 0; b < batch; ++b)
                    for (int64_t t = 0; t < frames; ++t)
                        for (int64_t p = 0; p < positions; ++p)
                            for (int64_t o = 0; o < channels; ++o) {
                                double sum = x(b, t, p, o);
                                for (int64_t r = 0; r < 3; ++r) {
                                    int64_t from = t + r - 1;
                                    if (from >= frames || (from < 0 && !s.past)) continue;
                                    for (int64_t c = 0; c < channels; ++c) {
                                        sum += w(o, r, c) * (from < 0 ? past(b, 0, p, c) : x(b, from, p, c));
                                    }
                                }
                                if (s.groups > 0)
                                    sum *= gate(b, (t * positions + p) * s.groups / (frames * positions), o);
                                y(b, t, p, o) = sum + (s.residual ? residual(b, t, p, o) : 0);
                            }
                return Tensors{y.tensor()};
            },
        .flops = 6.0 * static_cast<double>(s.x.numel() * channels),
    };
}

}  // namespace

std::vector<Case> mix_ffn_cases() {
    // fp32: nine products a channel between exponentials.
    Case depth{.name = "depthwise_glu", .bounds = {1e-6, kRoundBf16, kRoundF16}};
    depth.tests = {glu({1, 1, 1, 1, 2}),          glu({2, 3, 5, 7, 6}),          glu({1, 2, 1, 9, 16}),
                   glu({1, 2, 9, 1, 16}),         glu({2, 1, 4, 5, 514}, false), glu({1, 1, 3, 3, 1100}),
                   glu({1, 1, 6, 6, 8}, true, 40)};  // exp(-x) overflows for the negative half
    depth.bench_cpu = {glu({1, 1, 30, 52, 13440})};
    depth.bench_gpu = {glu({2, 21, 30, 52, 13440})};

    // fp32: sums of up to 3 * 130 products.
    Case time{.name = "temporal_conv", .bounds = {1e-6, kRoundBf16, kRoundF16}};
    time.tests = {
        temporal({{1, 1, 1, 1}}),
        temporal({{2, 1, 5, 7}}),
        temporal({{2, 1, 5, 7}, true}),
        temporal({{2, 2, 3, 8}}),
        temporal({{2, 5, 6, 48}, true, 5, true}),
        temporal({{1, 4, 7, 33}, false, 1, true}),
        temporal({{3, 3, 4, 16}, true, 12}),
        temporal({{1, 3, 20, 130}, true, 0, true}),
        // Tiles that lie whole in the first or the last frame.
        temporal({{1, 3, 520, 16}, false, 1, true}),
        temporal({{2, 2, 390, 32}, true, 0, true}),
    };
    time.bench_cpu = {temporal({{1, 3, 520, 2240}, true, 1, true})};
    time.bench_gpu = {temporal({{2, 21, 1560, 2240}, false, 1, true})};
    return {depth, time};
}

}  // namespace sana::cases
