// Elementwise operations; every input may have strided rows.
#include "bench/case.h"
#include "bench/values.h"
#include "ops/pointwise.h"

namespace sana::cases {

namespace {

const std::vector<Shape>& shapes() {
    static const std::vector<Shape> list{{1}, {7}, {2, 3, 2241}, {2, 2, 3, 5, 96}, {3, 1, 1}, {0, 5}};
    return list;
}
const Shape kCpuShape{1, 1560, 2240}, kGpuShape{2, 32760, 2240};

// An op of equally shaped inputs that works on each element alone.
template <class Run, class Formula>
Instance elementwise(const std::string& name, const Shape& shape, int64_t inputs, double low, double high,
                     Run run, Formula formula) {
    return {
        .name = join("x", shape, name),
        .inputs =
            [=](Generator& g) {
                Inputs in;
                for (int64_t i = 0; i < inputs; ++i) in.push_back(strided(g.uniform(shape, low, high)));
                return in;
            },
        .run = [=](const Tensors& in) { return Tensors{run(in)}; },
        .reference =
            [=](const Tensors& in) {
                std::vector<Values> x;
                for (const Tensor& tensor : in) x.emplace_back(tensor);
                Values y(shape);
                for (int64_t i = 0; i < y.size(); ++i) {
                    std::vector<double> at;
                    for (const Values& v : x) at.push_back(v.flat(i));
                    y.flat(i) = formula(at);
                }
                return Tensors{y.tensor()};
            },
        .flops = static_cast<double>(shape.numel() * inputs),
    };
}

Instance activate_instance(const Shape& shape, Activation a, double range) {
    return elementwise(
        join(label(a), " in ", -range, " .. ", range), shape, 1, -range, range,
        [=](const Tensors& in) { return activate(in[0], a); },
        [=](const std::vector<double>& x) { return activated(a, x[0]); });
}

Instance add_instance(const Shape& shape) {
    return elementwise(
        "", shape, 2, -2, 2, [](const Tensors& in) { return add(in[0], in[1]); },
        [](const std::vector<double>& x) { return x[0] + x[1]; });
}

Instance gelu_multiply_instance(const Shape& shape, double range) {
    return elementwise(
        join(" in ", -range, " .. ", range), shape, 2, -range, range,
        [](const Tensors& in) { return gelu_multiply(in[0], in[1]); },
        [](const std::vector<double>& x) { return activated(Activation::gelu_tanh, x[0]) * x[1]; });
}

Instance clamp_instance(const Shape& shape) {
    return elementwise(
        "", shape, 1, -3, 3, [](const Tensors& in) { return clamp(in[0], -1, 0.5f); },
        [](const std::vector<double>& x) { return std::min(std::max(x[0], -1.0), 0.5); });
}

Instance combine_instance(const Shape& shape, size_t terms) {
    const std::vector<double> factors{0.3, -1.7, 2.25, 1e-3};
    return elementwise(
        join(" ", terms, " terms"), shape, static_cast<int64_t>(terms), -2, 2,
        [=](const Tensors& in) {
            std::vector<Term> list;
            for (size_t i = 0; i < terms; ++i) list.emplace_back(factors[i], in[i]);
            return combine(list);
        },
        [=](const std::vector<double>& x) {
            double sum = 0;
            for (size_t i = 0; i < terms; ++i) sum += factors[i] * x[i];
            return sum;
        });
}

Instance affine_instance(const Shape& shape, bool scale, bool shift) {
    return {
        .name = join("x", shape, scale ? " scale" : "", shift ? " shift" : ""),
        .inputs =
            [=](Generator& g) {
                return Inputs{strided(g.normal(shape)), scale ? g.normal({shape[-1]}) : Input{},
                              shift ? g.normal({shape[-1]}) : Input{}};
            },
        .run = [](const Tensors& in) { return Tensors{affine(in[0], in[1], in[2])}; },
        .reference =
            [=](const Tensors& in) {
                Values x(in[0]), a(in[1]), b(in[2]), y(shape);
                for (int64_t i = 0; i < y.size(); ++i) {
                    int64_t c = i % shape[-1];
                    y.flat(i) = x.flat(i) * (scale ? a(c) : 1) + (shift ? b(c) : 0);
                }
                return Tensors{y.tensor()};
            },
        .flops = 2.0 * static_cast<double>(shape.numel()),
    };
}

Instance group_mean_instance(const Shape& shape, int64_t group) {
    return {
        .name = join("x", shape, " group ", group),
        .inputs = [=](Generator& g) { return Inputs{strided(g.normal(shape))}; },
        .run = [=](const Tensors& in) { return Tensors{group_mean(in[0], group)}; },
        .reference =
            [=](const Tensors& in) {
                Shape result = shape;
                result[-1] /= group;
                Values x(in[0]), y(result);
                for (int64_t i = 0; i < x.size(); ++i)
                    y.flat(i / group) += x.flat(i) / static_cast<double>(group);
                return Tensors{y.tensor()};
            },
        .flops = static_cast<double>(shape.numel()),
    };
}

}  // namespace

std::vector<Case> pointwise_cases() {
    // One rounding of the result in every dtype (fp32 3e-8 in relative L2), and those of an exponential or of a few sums.
    const Bounds one_rounding{1e-7, kRoundBf16, kRoundF16};
    Case act{.name = "activate", .bounds = one_rounding}, sum{.name = "add", .bounds = one_rounding},
        gelu{.name = "gelu_multiply", .bounds = one_rounding}, limit{.name = "clamp", .bounds = {0, 0, 0}},
        scale{.name = "affine", .bounds = one_rounding}, mix{.name = "combine", .bounds = one_rounding},
        mean{.name = "group_mean", .bounds = one_rounding};
    for (const Shape& shape : shapes()) {
        for (Activation a : {Activation::none, Activation::relu, Activation::silu, Activation::gelu_tanh}) {
            act.tests.push_back(activate_instance(shape, a, 4));
            act.tests.push_back(activate_instance(shape, a, 200));  // exp(200) overflows fp32
        }
        sum.tests.push_back(add_instance(shape));
        gelu.tests.push_back(gelu_multiply_instance(shape, 4));
        gelu.tests.push_back(gelu_multiply_instance(shape, 100));
        limit.tests.push_back(clamp_instance(shape));
        for (size_t terms = 1; terms <= 4; ++terms) mix.tests.push_back(combine_instance(shape, terms));
        for (bool a : {false, true}) {
            for (bool b : {false, true}) scale.tests.push_back(affine_instance(shape, a, b));
        }
    }
    for (auto [width, group] : {std::pair{1, 1}, {6, 1}, {6, 3}, {2240, 4}, {9000, 3}, {8, 8}}) {
        mean.tests.push_back(group_mean_instance({2, 3, width}, group));
    }
    for (auto [shape, list] : {std::pair{kCpuShape, &Case::bench_cpu}, {kGpuShape, &Case::bench_gpu}}) {
        (act.*list).push_back(activate_instance(shape, Activation::silu, 4));
        (act.*list).push_back(activate_instance(shape, Activation::gelu_tanh, 4));
        (sum.*list).push_back(add_instance(shape));
        (gelu.*list).push_back(gelu_multiply_instance(shape, 4));
        (limit.*list).push_back(clamp_instance(shape));
        (mix.*list).push_back(combine_instance(shape, 3));
        (scale.*list).push_back(affine_instance(shape, true, true));
        (mean.*list).push_back(group_mean_instance(shape, 4));
    }
    return {act, sum, gelu, limit, scale, mix, mean};
}

}  // namespace sana::cases
