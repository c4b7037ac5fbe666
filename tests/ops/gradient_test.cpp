// Every derivative against central differences in fp64: the loss is a fixed random combination of the result.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "core/random.h"
#include "ops/gradients.h"
#include "ops/tape.h"

using namespace sana;

namespace {

using Inputs = std::vector<Tensor>;
using Function = std::function<Tensor(const Inputs&)>;

Tensor noise(const Shape& shape, uint64_t stream) {
    return randn_philox(shape, 5, stream).to(DType::F64).clone();
}

double inner(const Tensor& a, const Tensor& b) {
    std::vector<double> x = to_vector<double>(a), y = to_vector<double>(b);
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
    return sum;
}

// Central differences with h = 1e-5 are good to about 1e-9 relative in fp64; 1e-6 leaves room for sums that cancel.
void check_gradient(const std::string& name, Inputs inputs, const Function& f) {
    SCOPED_TRACE(name);
    constexpr double kStep = 1e-5, kBound = 1e-6;
    std::vector<Tensor> gradients;
    Tensor seed;
    {
        Tape tape;
        for (const Tensor& x : inputs) tape.require(x);
        Tensor y = f(inputs);
        seed = noise(y.shape(), 99);
        tape.backward(y, seed);
        for (const Tensor& x : inputs) gradients.push_back(tape.gradient(x).clone());
    }
    for (size_t k = 0; k < inputs.size(); ++k) {
        double scale = 0;
        for (double g : to_vector<double>(gradients[k])) scale = std::max(scale, std::abs(g));
        double* values = inputs[k].data<double>();
        for (int64_t i = 0; i < inputs[k].numel(); ++i) {
            double kept = values[i];
            values[i] = kept + kStep;
            double high = inner(f(inputs), seed);
            values[i] = kept - kStep;
            double low = inner(f(inputs), seed);
            values[i] = kept;
            ASSERT_NEAR(gradients[k].data<double>()[i], (high - low) / (2 * kStep),
                        kBound * std::max(1.0, scale))
                << "input " << k << " element " << i;
        }
    }
}

}  // namespace

TEST(Gradient, Linear) {
    for (Activation activation : {Activation::none, Activation::silu, Activation::gelu_tanh}) {
        for (int64_t groups : {1, 2}) {
            check_gradient(join("activation ", static_cast<int64_t>(activation), " groups ", groups),
                           {noise({2, 4, 3}, 1), noise({5, 3}, 2), noise({5}, 3), noise({2, groups, 5}, 4),
                            noise({2, 4, 5}, 5)},
                           [&](const Inputs& in) {
                               return linear(in[0], in[1], in[2], {activation, in[3], in[4]});
                           });
        }
    }
    check_gradient("plain", {noise({7, 3}, 1), noise({2, 3}, 2)},
                   [](const Inputs& in) { return linear(in[0], in[1]); });
}

TEST(Gradient, Norms) {
    for (int64_t groups : {1, 3}) {
        check_gradient("layer_norm_modulate",
                       {noise({2, 3, 7}, 1), noise({2, groups, 7}, 2), noise({2, groups, 7}, 3)},
                       [](const Inputs& in) { return layer_norm_modulate(in[0], in[1], in[2]); });
    }
    for (Activation activation : {Activation::none, Activation::silu}) {
        check_gradient("rms_norm", {noise({2, 3, 7}, 1), noise({7}, 2)}, [&](const Inputs& in) {
            return rms_norm(in[0], in[1], {.eps = 1e-3f, .weight_offset = 1, .activation = activation});
        });
        check_gradient("rms_norm with a floor", {noise({4, 5}, 1), noise({5}, 2)}, [&](const Inputs& in) {
            return rms_norm(in[0], in[1], {.floor = 1e-12f, .activation = activation});
        });
    }
}

// q, k and v as columns of one product, as the model has them: gradients of views land in the whole.
TEST(Gradient, LinearAttention) {
    Rope rope = rope_3d({1, 2, 3}, 6, 10000, 0, kCpu);
    check_gradient("linear_attention", {noise({2, 6, 36}, 1), noise({12}, 2), noise({12}, 3)},
                   [&](const Inputs& in) {
                       LinearAttentionOptions options{
                           .heads = 2, .q_norm = in[1], .k_norm = in[2], .eps = 1e-3f, .rope = rope};
                       return linear_attention(in[0].cols_slice(0, 12), in[0].cols_slice(12, 12),
                                               in[0].cols_slice(24, 12), options);
                   });
}

TEST(Gradient, Attention) {
    Tensor mask = from_vector<int32_t>({1, 1, 0, 1, 1, 1, 1, 0, 0, 1}, {2, 5});
    check_gradient(
        "mask", {noise({2, 3, 8}, 1), noise({2, 5, 8}, 2), noise({2, 5, 8}, 3)}, [&](const Inputs& in) {
            return attention(in[0], in[1], in[2], mask, {.heads = 2, .kv_heads = 2, .scale = 0.5f});
        });
    check_gradient(
        "causal, cap, grouped", {noise({1, 5, 8}, 1), noise({1, 5, 4}, 2), noise({1, 5, 4}, 3)},
        [&](const Inputs& in) {
            return attention(
                in[0], in[1], in[2], {},
                {.heads = 2, .kv_heads = 1, .scale = 0.7f, .soft_cap = 2, .causal = true, .window = 3});
        });
}

TEST(Gradient, MixFfn) {
    check_gradient("depthwise_glu", {noise({1, 2, 3, 4, 4}, 1), noise({3, 3, 4}, 2), noise({4}, 3)},
                   [](const Inputs& in) { return depthwise_glu(in[0], in[1], in[2]); });
    for (int64_t groups : {1, 3}) {
        check_gradient(
            "temporal_conv",
            {noise({2, 3, 2, 4}, 1), noise({4, 3, 4}, 2), noise({2, groups, 4}, 3), noise({2, 3, 2, 4}, 4)},
            [](const Inputs& in) {
                return temporal_conv(in[0], in[1], {}, {.gate = in[2], .residual = in[3]});
            });
    }
    check_gradient("one frame", {noise({1, 1, 2, 4}, 1), noise({4, 3, 4}, 2)},
                   [](const Inputs& in) { return temporal_conv(in[0], in[1], {}, {}); });
}

TEST(Gradient, PointwiseAndLayout) {
    for (Activation activation : {Activation::silu, Activation::gelu_tanh}) {
        check_gradient("activate", {noise({3, 5}, 1)},
                       [&](const Inputs& in) { return activate(in[0], activation); });
    }
    check_gradient("affine", {noise({3, 5}, 1), noise({5}, 2), noise({5}, 3)},
                   [](const Inputs& in) { return affine(in[0], in[1], in[2]); });
    check_gradient("combine", {noise({3, 5}, 1), noise({3, 5}, 2)}, [](const Inputs& in) {
        return combine({{2, in[0]}, {-3, in[1]}});
    });
    check_gradient("the same tensor twice", {noise({3, 5}, 1)},
                   [](const Inputs& in) { return add(activate(in[0], Activation::silu), in[0]); });
    check_gradient("concat", {noise({2, 3, 2}, 1), noise({2, 1, 2}, 2)}, [](const Inputs& in) {
        return concat({in[0], in[1], in[0]}, 1);
    });
    check_gradient("slice", {noise({2, 4, 3}, 1)},
                   [](const Inputs& in) { return activate(slice(in[0], 1, 1, 2), Activation::silu); });
    check_gradient("permute", {noise({2, 4, 3}, 1)}, [](const Inputs& in) {
        return permute(in[0], {2, 0, 1});
    });
}

TEST(Gradient, NothingIsRecordedWithoutATapeOrANeed) {
    Tensor x = noise({2, 3}, 1), w = noise({2, 3}, 2);
    Tape tape;
    Tensor y = linear(x, w);
    EXPECT_FALSE(tape.needs(y));
    tape.require(w);
    EXPECT_TRUE(tape.needs(linear(x, w)));
    NoTape pause;
    EXPECT_FALSE(tape.needs(linear(x, w)));
}

TEST(Gradient, WhatHasNoDerivativeSaysSo) {
    Tensor x = noise({2, 3}, 1);
    Tape tape;
    tape.require(x);
    EXPECT_THROW(clamp(x, 0, 1), Error);
    EXPECT_THROW(tape.gradient(noise({2}, 2)), Error);
}
