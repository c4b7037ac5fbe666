// E4M3: rows to codes and back, and the products of codes.
#include <memory>

#include "bench/case.h"
#include "bench/values.h"
#include "ops/glu_fp8.h"

namespace sana::cases {

namespace {

// To the nearest E4M3, |v| <= 448.
double rounded(double v) {
    if (v == 0) return 0;
    int exponent = 0;
    std::frexp(v, &exponent);                                 // |v| in [2^(exponent-1), 2^exponent)
    double step = std::exp2(std::max(exponent - 1, -6) - 3);  // three bits of mantissa
    return std::nearbyint(v / step) * step;
}

double scale_of(double largest) {
    return largest == 0 ? 1 : std::exp2(std::max(std::ceil(std::log2(largest / 448)), -120.0));
}

// The values that the codes of x stand for, rows of `cols`.
Tensor quantised(const Tensor& x, int64_t cols, std::vector<double>* scales = nullptr) {
    std::vector<double> v = to_vector<double>(x);
    for (int64_t r = 0; r < x.numel() / std::max<int64_t>(cols, 1); ++r) {
        double* row = v.data() + r * cols;
        double largest = 0;
        for (int64_t i = 0; i < cols; ++i) {
            row[i] = static_cast<double>(static_cast<float>(row[i]));
            largest = std::max(largest, std::abs(row[i]));
        }
        double scale = scale_of(largest);
        for (int64_t i = 0; i < cols; ++i) row[i] = rounded(row[i] / scale) * scale;
        if (scales != nullptr) scales->push_back(scale);
    }
    return from_vector(v, x.shape());
}

// A dtype that holds codes times scales exactly, for results that are compared.
DType exact(const Tensor& x) { return x.dtype() == DType::F64 ? DType::F64 : DType::F32; }

struct Rows {
    Shape shape;
    double deviation = 1;
    bool spread = false;  // magnitudes over 36 binades: some codes are subnormal, some zero
};

Input rows_input(Generator& g, const Rows& s) {
    Input x = g.normal(s.shape, s.deviation);
    if (!s.spread) return x;
    double* v = x.value.data<double>();
    for (int64_t i = 0; i < x.value.numel(); ++i) v[i] *= std::exp2(static_cast<double>(i * 7 % 37 - 24));
    for (int64_t i = 0; i < s.shape[-1]; ++i) v[i] = 0;  // a row of zeros
    return x;
}

Instance codes(const Rows& s) {
    return {
        .name =
            join("x", s.shape, s.spread ? " spread" : "", s.deviation != 1 ? join(" of ", s.deviation) : ""),
        .inputs = [=](Generator& g) { return Inputs{strided(rows_input(g, s))}; },
        .run =
            [](const Tensors& in) {
                Fp8 y = quantise(in[0]);
                return Tensors{dequantise(y, exact(in[0])), y.scale};
            },
        .reference =
            [=](const Tensors& in) {
                std::vector<double> scales;
                Tensor y = quantised(in[0], s.shape[-1], &scales);
                return Tensors{y, from_vector(scales, {y.rows()}).reshape(quantise(in[0]).scale.shape())};
            },
        .flops = 4.0 * static_cast<double>(s.shape.numel()),
        .bytes =
            [](const Tensors& in, const Tensors&) {
                return static_cast<double>(in[0].bytes() + in[0].numel() + 4 * in[0].rows());
            },
    };
}

Instance values(const Rows& s) {
    return {
        .name = join("x", s.shape, s.spread ? " spread" : ""),
        .inputs = [=](Generator& g) { return Inputs{strided(rows_input(g, s))}; },
        .run = [](const Tensors& in) { return Tensors{dequantise(quantise(in[0]), in[0].dtype())}; },
        .reference = [=](const Tensors& in) { return Tensors{quantised(in[0], s.shape[-1])}; },
        .flops = static_cast<double>(s.shape.numel()),
    };
}

struct Product {
    int64_t batch, rows, channels, width;
    bool bias = false;
    Activation activation = Activation::none;
    int64_t groups = 0;
    bool residual = false;
};

// Inputs: x, weight, bias, gate, residual.
Instance product(const Product& s) {
    Shape x_shape{s.batch, s.rows, s.channels}, y_shape{s.batch, s.rows, s.width};
    return {
        .name = join("x", Shape{s.batch, s.rows}, " C", s.channels, " O", s.width, s.bias ? " bias" : "",
                     label(s.activation), s.groups > 0 ? join(" gate G", s.groups) : "",
                     s.residual ? " residual" : ""),
        .inputs =
            [=](Generator& g) {
                double deviation = 1 / std::sqrt(static_cast<double>(s.channels));
                Inputs in{strided(g.normal(x_shape)), g.normal({s.width, s.channels}, deviation), {}, {}, {}};
                if (s.bias) in[2] = g.normal({s.width});
                if (s.groups > 0) in[3] = strided(g.normal({s.batch, s.groups, s.width}));
                if (s.residual) in[4] = strided(g.normal(y_shape));
                return in;
            },
        .run =
            [=](const Tensors& in) {
                return Tensors{linear(in[0], quantise(in[1]), in[2], {s.activation, in[3], in[4]})};
            },
        .reference =
            [=](const Tensors& in) {
                Values x(quantised(in[0], s.channels)), w(quantised(in[1], s.channels)), bias(in[2]),
                    gate(in[3]), residual(in[4]), y(y_shape);
                for (int64_t b = 0; b < s.batch; ++b)
                    for (int64_t n = 0; n < s.rows; ++n)
                        for (int64_t o = 0; o < s.width; ++o) {
                            double sum = s.bias ? bias(o) : 0;
                            for (int64_t c = 0; c < s.channels; ++c) sum += x(b, n, c) * w(o, c);
                            sum = activated(s.activation, sum);
                            if (s.groups > 0) sum *= gate(b, n * s.groups / s.rows, o);
                            y(b, n, o) = sum + (s.residual ? residual(b, n, o) : 0);
                        }
                return Tensors{y.tensor()};
            },
        .flops = 2.0 * static_cast<double>(s.batch * s.rows * s.channels * s.width),
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
                Inputs in{g.normal(s.x), g.normal({channels, 3 * channels}, deviation), {}, {}, {}};
                if (s.past)
                    in[2] = g.normal({batch, 1, positions, channels}, 5);  // scales that differ by frame
                if (s.groups > 0) in[3] = strided(g.normal({batch, s.groups, channels}));
                if (s.residual) in[4] = strided(g.normal(s.x));
                return in;
            },
        .run =
            [](const Tensors& in) {
                return Tensors{
                    temporal_conv(in[0], quantise(in[1]), in[2], {Activation::none, in[3], in[4]})};
            },
        .reference =
            [=](const Tensors& in) {
                Values added(in[0]), x(quantised(in[0], channels)), w(quantised(in[1], 3 * channels)),
                    past(in[2].defined() ? quantised(in[2], channels) : Tensor()), gate(in[3]),
                    residual(in[4]), y(s.x);
                for (int64_t b = 0; b < batch; ++b)
                    for (int64_t t = 0; t < frames; ++t)
                        for (int64_t p = 0; p < positions; ++p)
                            for (int64_t o = 0; o < channels; ++o) {
                                double sum = added(b, t, p, o);
                                for (int64_t r = 0; r < 3; ++r) {
                                    int64_t from = t + r - 1;
                                    if (from >= frames || (from < 0 && !s.past)) continue;
                                    for (int64_t c = 0; c < channels; ++c) {
                                        sum += w(o, r * channels + c) *
                                               (from < 0 ? past(b, 0, p, c) : x(b, from, p, c));
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

Instance layer_norm(int64_t batch, int64_t tokens, int64_t groups, int64_t channels) {
    return {
        .name = join("B", batch, " N", tokens, " G", groups, " C", channels),
        .inputs =
            [=](Generator& g) {
                return Inputs{strided(g.normal({batch, tokens, channels})),
                              strided(g.normal({batch, groups, channels})),
                              strided(g.normal({batch, groups, channels}))};
            },
        .run =
            [](const Tensors& in) {
                return Tensors{dequantise(layer_norm_modulate_fp8(in[0], in[1], in[2]), exact(in[0]))};
            },
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
                return Tensors{quantised(y.tensor(), channels)};
            },
        .flops = 12.0 * static_cast<double>(batch * tokens * channels),
        .bytes =
            [](const Tensors& in, const Tensors&) {
                return static_cast<double>(in[0].bytes() + in[0].numel() + 4 * in[0].rows());
            },
    };
}

Instance glu(const Shape& shape, bool with_bias, double deviation = 1) {
    int64_t half = shape[4] / 2;
    Shape y_shape = shape;
    y_shape[-1] = half;
    return {
        .name = join("x", shape, with_bias ? "" : " no bias", deviation != 1 ? join(" of ", deviation) : ""),
        .inputs =
            [=](Generator& g) {
                return Inputs{g.normal(shape, deviation), g.normal({3, 3, 2 * half}, 1.0 / 3),
                              with_bias ? g.normal({2 * half}) : Input{}};
            },
        .run =
            [](const Tensors& in) {
                Fp8 y = depthwise_glu_fp8(in[0], in[1], in[2]);
                return Tensors{dequantise(y, exact(in[0]))};
            },
        .reference =
            [=](const Tensors& in) {
                Values x(in[0]), w(in[1]), b(in[2]), y(y_shape);
                auto conv = [&](int64_t n, int64_t t, int64_t h, int64_t u, int64_t c) {
                    double sum = b.defined() ? b(c) : 0;
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
                                    y(n, t, h, u, c) = static_cast<float>(
                                        conv(n, t, h, u, c) *
                                        activated(Activation::silu, conv(n, t, h, u, c + half)));
                if (y.size() == 0) return Tensors{y.tensor()};
                // Six rows in the middle of two frames tell the scale.
                int64_t rows = std::min<int64_t>(6, shape[2]),
                        first = std::min(shape[2] / 2 / 6 * 6, shape[2] - rows),
                        middle = shape[0] * shape[1] / 2;
                double largest = 0;
                for (int64_t f : {int64_t{0}, middle})
                    for (int64_t h = first; h < first + rows; ++h)
                        for (int64_t u = 0; u < shape[3]; ++u)
                            for (int64_t c = 0; c < half; ++c)
                                largest = std::max(largest, std::abs(y(f / shape[1], f % shape[1], h, u, c)));
                double scale = scale_of(largest * 32);
                for (int64_t i = 0; i < y.size(); ++i)
                    y.flat(i) = rounded(std::clamp(y.flat(i) / scale, -448.0, 448.0)) * scale;
                return Tensors{y.tensor()};
            },
        .flops = 26.0 * static_cast<double>(shape.numel()),
        .bytes =
            [](const Tensors& in, const Tensors&) {
                return static_cast<double>(in[0].bytes() + in[1].bytes() + in[0].numel() / 2);
            },
    };
}

// For timing: without the way back from codes, which comparing needs.
Instance timed(Instance one, Fp8 (*run)(const Tensors&)) {
    one.run = [=](const Tensors& in) {
        Fp8 y = run(in);
        return Tensors{y.codes, y.scale};
    };
    return one;
}
Instance timed_codes(const Rows& s) {
    return timed(codes(s), [](const Tensors& in) { return quantise(in[0]); });
}
Instance timed_layer_norm(int64_t batch, int64_t tokens, int64_t groups, int64_t channels) {
    return timed(layer_norm(batch, tokens, groups, channels),
                 [](const Tensors& in) { return layer_norm_modulate_fp8(in[0], in[1], in[2]); });
}
Instance timed_glu(const Shape& shape) {
    return timed(glu(shape, true), [](const Tensors& in) { return depthwise_glu_fp8(in[0], in[1], in[2]); });
}

// For timing: of operands that are codes already, as weights are and most inputs come.
Instance timed_product(const Product& s) {
    struct Operands {
        Fp8 x, weight;
    };
    Instance one = product(s);
    one.run = [=, kept = std::make_shared<Operands>()](const Tensors& in) {
        if (!kept->x.defined()) *kept = {quantise(in[0]), quantise(in[1])};
        return Tensors{linear(kept->x, kept->weight, in[2], {s.activation, in[3], in[4]}, in[0].dtype())};
    };
    return one;
}

}  // namespace

std::vector<Case> fp8_cases() {
    Case to{.name = "quantise", .bounds = {0, 0, 0}};
    for (const Shape& shape : {Shape{1, 1}, Shape{3, 7}, Shape{5}, Shape{2, 33, 48}, Shape{2, 0, 8},
                               Shape{4, 2241}, Shape{3, 6720}, Shape{2, 8000}})
        to.tests.push_back(codes({shape}));
    to.tests.push_back(codes({{9, 328}, 1, true}));
    to.tests.push_back(codes({{9, 321}, 1, true}));
    // fp16 ends at 65504.
    to.tests.push_back(codes({{7, 40}, 1e-3}));
    to.bench_cpu = {timed_codes({{1560, 2240}})};
    to.bench_gpu = {timed_codes({{65520, 2240}}), timed_codes({{32760, 6720}})};

    Case from{.name = "dequantise", .bounds = {0, 0, 0}};
    for (const Shape& shape : {Shape{1, 1}, Shape{3, 7}, Shape{2, 33, 48}})
        from.tests.push_back(values({shape}));
    from.bench_cpu = {values({{1560, 2240}})};
    from.bench_gpu = {values({{32760, 2240}})};

    // As linear: the codes are exact.
    Case linear{.name = "linear_fp8", .bounds = {1e-6, kRoundBf16, kRoundF16}};
    linear.tests = {product({1, 1, 1, 1}), product({2, 7, 5, 3, true, Activation::none, 0, true}),
                    product({1, 130, 257, 70}), product({2, 24, 48, 64, true, Activation::silu, 4, true}),
                    product({2, 24, 48, 64, false, Activation::none, 24, true}),
                    product({1, 0, 16, 16, true}), product({1, 77, 16, 8, true}),
                    product({1, 300, 96, 136, true, Activation::relu}),
                    product({1, 129, 192, 224, true, Activation::gelu_tanh}),
                    product({2, 150, 336, 232, true, Activation::none, 0, true}),
                    product({2, 150, 144, 520, true, Activation::none, 6, true}),
                    // So many rows that a library may be asked.
                    product({1, 1040, 272, 80, true}), product({2, 600, 96, 136})};
    for (auto [rows, list] :
         {std::pair{int64_t{390}, &linear.bench_cpu}, {int64_t{32760}, &linear.bench_gpu}}) {
        list->push_back(timed_product({1, rows, 2240, 6720}));
        list->push_back(timed_product({1, rows, 2240, 2240, true, Activation::none, 1, true}));
        list->push_back(timed_product({1, rows, 2240, 13440, true}));
        list->push_back(timed_product({1, rows, 6720, 2240}));
    }

    Case time{.name = "temporal_conv_fp8", .bounds = {1e-6, kRoundBf16, kRoundF16}};
    time.tests = {
        temporal({{1, 1, 1, 1}}),
        temporal({{2, 1, 5, 7}, true}),
        temporal({{2, 2, 3, 16}}),
        temporal({{2, 5, 6, 48}, true, 5, true}),
        temporal({{1, 4, 7, 33}, false, 1, true}),
        temporal({{3, 3, 4, 16}, true, 12}),
        temporal({{1, 3, 70, 144}, false, 1, true}),
        temporal({{2, 3, 23, 240}, true, 3, true}),
        // Tiles that lie whole in the first or the last frame.
        temporal({{1, 3, 520, 16}, false, 1, true}),
        temporal({{2, 2, 390, 32}, true, 0, true}),
    };
    time.bench_cpu = {temporal({{1, 3, 130, 2240}, true, 1, true})};
    time.bench_gpu = {temporal({{2, 21, 1560, 2240}, false, 1, true})};

    // A result within rounding of the middle of two codes may fall either way: a step of an eighth in few elements.
    Case norm{.name = "layer_norm_modulate_fp8", .bounds = {3e-3, 3e-3, 3e-3, 40}};
    norm.tests = {layer_norm(2, 12, 1, 48), layer_norm(2, 12, 3, 130), layer_norm(1, 5, 5, 2240),
                  layer_norm(1, 3, 1, 2241), layer_norm(2, 0, 1, 8)};
    norm.bench_cpu = {timed_layer_norm(1, 1560, 1, 2240)};
    norm.bench_gpu = {timed_layer_norm(2, 32760, 1, 2240)};

    // As layer_norm_modulate_fp8, where the walk's quick SiLU moves more elements over the middle of two codes.
    Case middle{.name = "depthwise_glu_fp8", .bounds = {1e-2, 1e-2, 1e-2, 40}};
    middle.tests = {glu({1, 1, 1, 1, 2}, true),     glu({2, 3, 5, 7, 6}, true),
                    glu({1, 2, 1, 9, 16}, true),    glu({2, 2, 14, 5, 36}, false),
                    glu({1, 3, 20, 3, 130}, true),  glu({2, 0, 4, 4, 8}, true),
                    glu({1, 1, 13, 3, 1100}, true), glu({1, 2, 8, 4, 64}, true, 30)};
    middle.bench_cpu = {timed_glu({1, 1, 30, 52, 13440})};
    middle.bench_gpu = {timed_glu({2, 21, 30, 52, 13440})};
    return {to, from, linear, time, norm, middle};
}

}  // namespace sana::cases
