// layer_norm_modulate and rms_norm.
#include "bench/case.h"
#include "bench/values.h"
#include "ops/norm.h"

namespace sana::cases {

namespace {

Instance layer_norm(int64_t batch, int64_t tokens, int64_t groups, int64_t channels, double mean = 0) {
    return {
        .name = join("B", batch, " N", tokens, " G", groups, " C", channels, mean != 0 ? " mean " : "",
                     mean != 0 ? join(mean) : ""),
        .inputs =
            [=](Generator& g) {
                return Inputs{strided(g.normal({batch, tokens, channels}, 1, mean)),
                              strided(g.normal({batch, groups, channels})),
                              strided(g.normal({batch, groups, channels}))};
            },
        .run = [](const Tensors& in) { return Tensors{layer_norm_modulate(in[0], in[1], in[2])}; },
        .reference =
            [=](const Tensors& in) {
                Values x(in[0]), shift(in[1]), scale(in[2]), y(in[0].shape());
                double n = static_cast<double>(channels);
                for (int64_t b = 0; b < batch; ++b) {
                    for (int64_t t = 0; t < tokens; ++t) {
                        double sum = 0, squares = 0;
                        for (int64_t c = 0; c < channels; ++c) sum += x(b, t, c);
                        for (int64_t c = 0; c < channels; ++c) squares += std::pow(x(b, t, c) - sum / n, 2);
                        double deviation = std::sqrt(squares / n + static_cast<double>(1e-6f));
                        int64_t g = t * groups / tokens;
                        for (int64_t c = 0; c < channels; ++c) {
                            y(b, t, c) =
                                (x(b, t, c) - sum / n) / deviation * (1 + scale(b, g, c)) + shift(b, g, c);
                        }
                    }
                }
                return Tensors{y.tensor()};
            },
        .flops = 8.0 * static_cast<double>(batch * tokens * channels),
        .f32_bound = std::abs(mean) * 0x1p-23,  // the unit in the last place of the mean, in deviations
    };
}

struct RmsShape {
    Shape shape;
    bool weight = true;
    bool zero_row = false;
    double deviation = 1;
};

Instance rms(const RmsShape& s, const RmsNormOptions& options) {
    return {
        .name = join("x", s.shape, s.weight ? "" : " no weight", s.zero_row ? " zero row" : "",
                     label(options.activation), options.floor > 0 ? join(" floor ", options.floor) : "",
                     options.weight_offset != 0 ? " offset" : "",
                     s.deviation != 1 ? join(" of ", s.deviation) : ""),
        .inputs =
            [=](Generator& g) {
                Input x = g.normal(s.shape, s.deviation);
                if (s.zero_row) {
                    for (int64_t c = 0; c < x.value.cols(); ++c) x.value.data<double>()[c] = 0;
                }
                return Inputs{strided(x), s.weight ? g.normal({s.shape[-1]}) : Input{}};
            },
        .run = [=](const Tensors& in) { return Tensors{rms_norm(in[0], in[1], options)}; },
        .reference =
            [=](const Tensors& in) {
                int64_t channels = s.shape[-1];
                Values x(in[0].reshape({-1, channels})), weight(in[1]), y(Shape{x.dim(0), channels});
                double n = static_cast<double>(channels), eps = options.eps, floor = options.floor;
                for (int64_t row = 0; row < x.dim(0); ++row) {
                    double squares = 0;
                    for (int64_t c = 0; c < channels; ++c) squares += x(row, c) * x(row, c);
                    double r = floor > 0 ? std::sqrt(n) / std::max(std::sqrt(squares), floor)
                                         : 1 / std::sqrt(squares / n + eps);
                    for (int64_t c = 0; c < channels; ++c) {
                        double factor = s.weight ? options.weight_offset + weight(c) : 1;
                        y(row, c) = activated(options.activation, x(row, c) * r * factor);
                    }
                }
                return Tensors{y.tensor().reshape(s.shape)};
            },
        .flops = 4.0 * static_cast<double>(s.shape.numel()),
    };
}

}  // namespace

std::vector<Case> norm_cases() {
    // fp32: one sum over a row, one square root, three products.
    Case layer{.name = "layer_norm_modulate", .bounds = {5e-7, kRoundBf16, kRoundF16}};
    for (auto [b, n, g, c] : std::vector<std::array<int64_t, 4>>{{1, 1, 1, 1},
                                                                 {1, 7, 1, 8},
                                                                 {2, 48, 3, 96},
                                                                 {3, 12, 12, 7},
                                                                 {2, 156, 1, 2240},
                                                                 {1, 3, 1, 2241}}) {
        layer.tests.push_back(layer_norm(b, n, g, c));
    }
    // A large mean: a variance from E[x^2] - E[x]^2 would lose all digits.
    layer.tests.push_back(layer_norm(1, 5, 1, 512, 100));
    layer.bench_cpu = {layer_norm(1, 1560, 1, 2240)};
    layer.bench_gpu = {layer_norm(2, 32760, 1, 2240), layer_norm(1, 32760, 21, 2240)};

    Case norm{.name = "rms_norm", .bounds = {5e-7, kRoundBf16, kRoundF16}};
    for (const Shape& shape : {Shape{1, 1, 1}, Shape{2, 7, 8}, Shape{3, 2240}, Shape{2, 3, 2241}, Shape{5},
                               Shape{1, 2, 3, 4, 96}}) {
        norm.tests.push_back(rms({shape}, {}));
        norm.tests.push_back(rms({shape, false}, {}));
    }
    norm.tests.push_back(rms({{4, 96}, true, true}, {}));
    norm.tests.push_back(rms({{4, 96}, true, true}, {.floor = 1e-12f}));
    norm.tests.push_back(
        rms({{40, 96}, true, false, 0.01}, {.floor = 0.1f}));  // rows on both sides of the floor
    norm.tests.push_back(rms({{40, 97}, true, false, 100}, {.floor = 0.1f}));
    for (Activation a : {Activation::relu, Activation::silu, Activation::gelu_tanh}) {
        norm.tests.push_back(rms({{2, 3, 5, 96}}, {.floor = 1e-12f, .activation = a}));
    }
    norm.tests.push_back(rms({{2, 7, 2304}}, {.eps = 1e-6f, .weight_offset = 1}));
    norm.bench_cpu = {rms({{1, 300, 2304}}, {.eps = 1e-6f, .weight_offset = 1}),
                      rms({{1, 1, 120, 208, 192}}, {.floor = 1e-12f, .activation = Activation::silu})};
    norm.bench_gpu = {rms({{1, 4, 480, 832, 96}}, {.floor = 1e-12f, .activation = Activation::silu}),
                      rms({{2, 32760, 2240}}, {})};
    return {layer, norm};
}

}  // namespace sana::cases
