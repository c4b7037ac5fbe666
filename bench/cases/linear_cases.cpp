// linear: shapes down to one element, every epilogue, projections of the diffusion transformer.
#include "bench/case.h"
#include "bench/values.h"
#include "ops/linear.h"

namespace sana::cases {

namespace {

struct Options {
    bool bias = false;
    Activation activation = Activation::none;
    int64_t groups = 0;  // 0: no gate
    bool residual = false;
};

// Inputs: x, weight, bias, gate, residual. x is [lead..., C]; only [B,N,C] takes a gate.
Instance instance(const Shape& lead, int64_t channels, int64_t width, const Options& options) {
    std::string name = join("x", lead, " C", channels, " O", width, options.bias ? " bias" : "",
                            label(options.activation), options.residual ? " residual" : "");
    if (options.groups > 0) name += join(" gate G", options.groups);
    Shape x_shape = lead, y_shape = lead;
    x_shape.push_back(channels);
    y_shape.push_back(width);
    return {
        .name = name,
        .inputs =
            [=](Generator& g) {
                double deviation = 1 / std::sqrt(static_cast<double>(channels));
                Inputs in{strided(g.normal(x_shape)), g.normal({width, channels}, deviation), {}, {}, {}};
                if (options.bias) in[2] = g.normal({width});
                if (options.groups > 0) in[3] = strided(g.normal({lead[0], options.groups, width}));
                if (options.residual) in[4] = strided(g.normal(y_shape));
                return in;
            },
        .run =
            [=](const Tensors& in) {
                return Tensors{linear(in[0], in[1], in[2], {options.activation, in[3], in[4]})};
            },
        .reference =
            [=](const Tensors& in) {
                Values x(in[0].reshape({-1, channels})), w(in[1]), bias(in[2]), gate(in[3]);
                Values y(Shape{x.dim(0), width});
                Tensor residual = in[4].defined() ? in[4].reshape({-1, width}) : Tensor();
                Values r(residual);
                int64_t tokens = lead[lead.rank() - 1];
                for (int64_t n = 0; n < x.dim(0); ++n) {
                    for (int64_t o = 0; o < width; ++o) {
                        double sum = options.bias ? bias(o) : 0;
                        for (int64_t c = 0; c < channels; ++c) sum += x(n, c) * w(o, c);
                        sum = activated(options.activation, sum);
                        if (options.groups > 0)
                            sum *= gate(n / tokens, n % tokens * options.groups / tokens, o);
                        if (options.residual) sum += r(n, o);
                        y(n, o) = sum;
                    }
                }
                return Tensors{y.tensor().reshape(y_shape)};
            },
        .flops = 2.0 * static_cast<double>(x_shape.numel() * width),
    };
}

}  // namespace

std::vector<Case> linear_cases() {
    // fp32: sums of up to 2241 products in an order of the library's choice.
    Case out{.name = "linear", .bounds = {1e-6, kRoundBf16, kRoundF16}};
    for (auto [batch, rows, channels, width] : std::vector<std::array<int64_t, 4>>{
             {1, 1, 1, 1}, {2, 7, 5, 3}, {1, 1, 48, 96}, {2, 33, 2241, 7}, {1, 130, 257, 70}}) {
        out.tests.push_back(instance({batch, rows}, channels, width, {}));
        out.tests.push_back(instance({batch, rows}, channels, width, {.bias = true, .residual = true}));
    }
    out.tests.push_back(instance({5}, 48, 33, {.bias = true}));
    out.tests.push_back(instance({2, 3, 2, 5}, 17, 9, {.bias = true, .residual = true}));
    out.tests.push_back(instance({2, 0}, 8, 8, {.bias = true}));
    for (Activation activation : {Activation::relu, Activation::silu, Activation::gelu_tanh}) {
        out.tests.push_back(instance({2, 24}, 48, 65, {.bias = true, .activation = activation}));
        out.tests.push_back(instance(
            {2, 24}, 48, 65, {.bias = true, .activation = activation, .groups = 4, .residual = true}));
    }
    for (int64_t groups : {1, 3, 24}) {
        out.tests.push_back(instance({2, 24}, 48, 65, {.groups = groups}));
        out.tests.push_back(instance({2, 24}, 48, 65, {.bias = true, .groups = groups, .residual = true}));
    }
    // Rows, depth and width beyond one tile of a large-matrix kernel, none of them a multiple of it.
    out.tests.push_back(instance({1, 2300}, 72, 40, {}));
    out.tests.push_back(instance({2, 1100}, 328, 232, {.bias = true, .residual = true}));
    out.tests.push_back(instance(
        {2, 1100}, 136, 520, {.bias = true, .activation = Activation::silu, .groups = 4, .residual = true}));
    // Joint query, key and value, output, expansion and contraction of the feed-forward part.
    for (auto [rows, list] : {std::pair{int64_t{1560}, &out.bench_cpu}, {int64_t{32760}, &out.bench_gpu}}) {
        list->push_back(instance({1, rows}, 2240, 6720, {}));
        list->push_back(instance({1, rows}, 2240, 2240, {.bias = true, .groups = 1, .residual = true}));
        list->push_back(instance({1, rows}, 2240, 13440, {.bias = true}));
        list->push_back(instance({1, rows}, 6720, 2240, {}));
    }
    return {out};
}

}  // namespace sana::cases
