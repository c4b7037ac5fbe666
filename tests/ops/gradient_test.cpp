// Every derivative against central differences in fp64: the loss is a fixed random combination of the result. On another
// device (SANA_DEVICE) the same derivatives in fp32 and bf16 against those of the CPU in fp64.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "../device.h"
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

struct Gradients {
    std::vector<Tensor> of_inputs;
    Tensor seed;
};

Gradients gradients_of(const Inputs& inputs, const Function& f) {
    Gradients out;
    Tape tape;
    for (const Tensor& x : inputs) tape.require(x);
    Tensor y = f(inputs);
    out.seed = noise(y.shape(), 99).to(DType::BF16).to(DType::F64);  // the same numbers in every dtype
    tape.backward(y, out.seed.to(y.dtype()).to(y.device()));
    for (const Tensor& x : inputs) out.of_inputs.push_back(tape.gradient(x).clone());
    return out;
}

// Sums in fp32 are good to 1e-5; in bf16 the inputs, a few intermediate results and the gradient itself are rounded to
// 2^-9 each, of terms that may cancel.
void check_on_device(const Inputs& inputs, const Function& f) {
    for (auto [dtype, bound] : {std::pair{DType::F32, 2e-5}, {DType::BF16, 4e-2}}) {
        Inputs exact, rounded;
        for (const Tensor& x : inputs) {
            rounded.push_back(x.to(dtype).to(test_device()));
            exact.push_back(x.to(dtype).to(DType::F64));
        }
        Gradients expected = gradients_of(exact, f), actual = gradients_of(rounded, f);
        for (size_t k = 0; k < inputs.size(); ++k) {
            EXPECT_LE(relative_l2(actual.of_inputs[k].to(kCpu), expected.of_inputs[k]), bound)
                << "input " << k << " in " << join(dtype);
        }
    }
}

// Central differences with h = 1e-5 are good to about 1e-9 relative in fp64; 1e-6 leaves room for sums that cancel.
void check_gradient(const std::string& name, Inputs inputs, const Function& f) {
    SCOPED_TRACE(name);
    if (test_device() != kCpu) return check_on_device(inputs, f);
    constexpr double kStep = 1e-5, kBound = 1e-6;
    auto [gradients, seed] = gradients_of(inputs, f);
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

// Tables and masks where the inputs are.
Rope there(const Rope& rope, const Inputs& in) {
    return {rope.cos.to(in[0].device()), rope.sin.to(in[0].device())};
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
    check_gradient(
        "linear_attention", {noise({2, 6, 36}, 1), noise({12}, 2), noise({12}, 3)}, [&](const Inputs& in) {
            LinearAttentionOptions options{
                .heads = 2, .q_norm = in[1], .k_norm = in[2], .eps = 1e-3f, .rope = there(rope, in)};
            return linear_attention(in[0].cols_slice(0, 12), in[0].cols_slice(12, 12),
                                    in[0].cols_slice(24, 12), options);
        });
}

TEST(Gradient, Attention) {
    Tensor mask = from_vector<int32_t>({1, 1, 0, 1, 1, 1, 1, 0, 0, 1}, {2, 5});
    check_gradient("mask", {noise({2, 3, 8}, 1), noise({2, 5, 8}, 2), noise({2, 5, 8}, 3)},
                   [&](const Inputs& in) {
                       return attention(in[0], in[1], in[2], mask.to(in[0].device()),
                                        {.heads = 2, .kv_heads = 2, .scale = 0.5f});
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
    Tensor x = noise({1, 6, 12}, 1), norm = noise({12}, 2);
    Tape tape;
    tape.require(x);
    EXPECT_THROW(tape.gradient(noise({2}, 2)), Error);
    LinearState state;
    LinearAttentionOptions options{
        .heads = 2, .q_norm = norm, .k_norm = norm, .rope = rope_3d({1, 2, 3}, 6, 10000, 0, kCpu)};
    options.total = &state;
    EXPECT_THROW(linear_attention(x, x, x, options), Error);
}

TEST(Gradient, Conv3d) {
    auto conv = [&](const std::string& name, Conv3dOptions o, const Shape& x, const Shape& weight,
                    bool with_past = false) {
        Inputs inputs{noise(x, 1), noise(weight, 2), noise({weight[0]}, 3)};
        if (with_past) {
            inputs.push_back(noise({x[0], 2, x[2], x[3], x[4]}, 4));
            o.past = inputs[3];
        }
        Tensor y = conv3d(inputs[0], inputs[1], inputs[2], o);
        inputs.push_back(noise(y.shape(), 5));
        check_gradient(name, inputs, [&](const Inputs& in) {
            Conv3dOptions all = o;
            all.past = with_past ? in[3] : Tensor();
            all.residual = in.back();
            return conv3d(in[0], in[1], in[2], all);
        });
    };
    conv("3x3x3", {.pad_before = {2, 1, 1}, .pad_after = {0, 1, 1}}, {2, 2, 3, 4, 2}, {3, 3, 3, 3, 2});
    conv("no padding", {}, {1, 3, 3, 4, 2}, {2, 3, 2, 2, 2});
    conv("past", {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}}, {1, 2, 3, 3, 2}, {3, 3, 3, 3, 2}, true);
    conv("stride of rows and columns", {.stride = {1, 2, 2}, .pad_after = {0, 1, 1}}, {1, 2, 4, 5, 2},
         {3, 1, 3, 3, 2});
    conv("stride of frames with a past", {.stride = {2, 1, 1}}, {1, 3, 2, 2, 2}, {2, 3, 1, 1, 2}, true);
    conv("stride that leaves a rest", {.stride = {1, 3, 2}}, {1, 1, 6, 6, 1}, {1, 1, 2, 3, 1});
    conv("more padding than kernel", {.pad_before = {0, 2, 1}, .pad_after = {0, 1, 3}}, {1, 1, 2, 2, 2},
         {2, 1, 2, 1, 2});
    conv("reflect and replicate",
         {.pad_before = {2, 1, 2},
          .pad_after = {1, 1, 1},
          .time_mode = PadMode::replicate,
          .space_mode = PadMode::reflect},
         {1, 2, 3, 4, 2}, {2, 3, 3, 3, 2});
    conv("upsample", {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}, .upsample = true}, {1, 2, 2, 3, 2},
         {2, 1, 3, 3, 2});
    conv("replicate with a past",
         {.pad_before = {1, 0, 0}, .pad_after = {1, 0, 0}, .time_mode = PadMode::replicate}, {1, 2, 2, 2, 1},
         {1, 3, 1, 1, 1}, true);
}

TEST(Gradient, Resampling) {
    for (bool rows_fastest : {false, true}) {
        check_gradient("depth_to_space", {noise({1, 2, 2, 3, 24}, 1), noise({1, 2, 2, 3, 8}, 2)},
                       [=](const Inputs& in) {
                           return depth_to_space(
                               in[0], in[1], {.stride = {2, 2, 3}, .drop = 1, .rows_fastest = rows_fastest});
                       });
    }
    check_gradient("upsample_nearest", {noise({1, 2, 2, 3, 2}, 1)},
                   [](const Inputs& in) { return upsample_nearest(in[0]); });
    check_gradient("mean_pixels", {noise({1, 2, 4, 6, 2}, 1)},
                   [](const Inputs& in) { return mean_pixels(in[0]); });
    check_gradient("group_mean", {noise({3, 6}, 1)}, [](const Inputs& in) { return group_mean(in[0], 3); });
    check_gradient("clamp", {noise({3, 6}, 1)}, [](const Inputs& in) { return clamp(in[0], -0.5f, 0.6f); });
}

TEST(Gradient, TextEncoder) {
    Tensor ids = from_vector<int32_t>({3, 1, 1, 0, 3, 3}, {2, 3});
    check_gradient("embedding", {noise({5, 4}, 1)},
                   [&](const Inputs& in) { return embedding(ids.to(in[0].device()), in[0], 2.5f); });
    Rope rope = rope_1d(3, 4, 10000, kCpu);
    check_gradient("rotate_half", {noise({2, 3, 8}, 1)},
                   [&](const Inputs& in) { return rotate_half(in[0], there(rope, in), 2); });
    check_gradient("gelu_multiply, halves of one product", {noise({2, 3, 8}, 1)}, [](const Inputs& in) {
        return gelu_multiply(in[0].cols_slice(0, 4), in[0].cols_slice(4, 4));
    });
}

TEST(Gradient, TemporalConvWithAPast) {
    check_gradient("past",
                   {noise({2, 3, 2, 4}, 1), noise({4, 3, 4}, 2), noise({2, 1, 2, 4}, 3), noise({2, 1, 4}, 4)},
                   [](const Inputs& in) { return temporal_conv(in[0], in[1], in[2], {.gate = in[3]}); });
}

// Two blocks, each computed again on the way back, of weights that both use.
TEST(Gradient, Checkpoint) {
    auto block = [](const Tensor& x, const Tensor& w) {
        return add(x, activate(linear(x, w), Activation::silu));
    };
    Inputs inputs{noise({2, 3, 5}, 1), noise({5, 5}, 2)};
    check_gradient("checkpoint", inputs, [&](const Inputs& in) {
        Tensor x = in[0], w = in[1];
        for (int i = 0; i < 2; ++i) x = checkpoint([=] { return block(x, w); });
        return linear(x, w);
    });
    // The same bits as without.
    auto gradients = [&](bool again) {
        Tape tape;
        tape.require(inputs[1]);
        Tensor x = inputs[0], w = inputs[1];
        Tensor y = again ? checkpoint([=] { return block(x, w); }) : block(x, w);
        tape.backward(y, noise(y.shape(), 9));
        return tape.gradient(w).clone();
    };
    EXPECT_EQ(max_abs_difference(gradients(true), gradients(false)), 0);
}
