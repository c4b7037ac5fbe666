// Derivatives at sizes where kernels split their work, and at odd ones: the device's fp32 and bf16 against fp64 of the CPU.
#include <gtest/gtest.h>

#include <functional>

#include "../device.h"
#include "core/random.h"
#include "ops/gradients.h"
#include "ops/tape.h"

using namespace sana;

namespace {

using Inputs = std::vector<Tensor>;
using Function = std::function<Tensor(const Inputs&)>;

// Gradients of a random combination of f's result, from equal inputs.
std::vector<Tensor> gradients_of(const Inputs& inputs, const Function& f) {
    Tape tape;
    for (const Tensor& x : inputs) tape.require(x);
    Tensor y = f(inputs), seed = randn_philox(y.shape(), 7, 99).to(DType::BF16).to(y.dtype());
    tape.backward(y, seed.to(y.device()));
    std::vector<Tensor> out;
    for (const Tensor& x : inputs) out.push_back(tape.gradient(x).clone());
    return out;
}

// fp32 sums of some thousand terms are good to 1e-5; bf16 rounds inputs of products and results to 2^-9 each.
void compare(const std::string& name, const std::vector<Shape>& shapes, const Function& f,
             double bf16_bound = 1e-2) {
    SCOPED_TRACE(name);
    Inputs values;
    for (size_t i = 0; i < shapes.size(); ++i) {
        Tensor x = randn_philox(shapes[i], 11, i);
        values.push_back(x.to(DType::BF16));
    }
    Inputs exact;
    for (const Tensor& x : values) exact.push_back(x.to(DType::F64));
    std::vector<Tensor> expected = gradients_of(exact, f);
    for (DType dtype : {DType::F32, DType::BF16}) {
        if (dtype == DType::BF16 && test_device() == kCpu)
            continue;  // the CPU's derivatives are fp32 and fp64
        Inputs inputs;
        for (const Tensor& x : values) inputs.push_back(x.to(dtype).clone().to(test_device()));
        std::vector<Tensor> actual = gradients_of(inputs, f), again = gradients_of(inputs, f);
        for (size_t k = 0; k < inputs.size(); ++k) {
            EXPECT_LE(relative_l2(actual[k].to(kCpu), expected[k]), dtype == DType::F32 ? 2e-5 : bf16_bound)
                << "input " << k << " in " << join(dtype);
            EXPECT_EQ(max_abs_difference(actual[k].to(kCpu), again[k].to(kCpu)), 0)
                << "input " << k << ", twice";
        }
    }
}

Rope there(const Rope& rope, const Inputs& in) {
    return {rope.cos.to(in[0].device()), rope.sin.to(in[0].device())};
}

}  // namespace

TEST(GradientSizes, Products) {
    for (int64_t rows : {127, 1024}) {
        compare(join("linear ", rows), {{2, rows, 96}, {224, 96}, {224}, {2, 1, 224}, {2, rows, 224}},
                [](const Inputs& in) {
                    return linear(in[0], in[1], in[2], {Activation::silu, in[3], in[4]});
                });
    }
    compare("odd linear", {{3, 65, 37}, {51, 37}, {51}},
            [](const Inputs& in) { return linear(in[0], in[1], in[2]); });
}

TEST(GradientSizes, Norms) {
    for (int64_t width : {7, 48, 320, 2240}) {
        compare(join("layer_norm_modulate ", width), {{2, 300, width}, {2, 3, width}, {2, 3, width}},
                [](const Inputs& in) { return layer_norm_modulate(in[0], in[1], in[2]); });
        compare(join("rms_norm ", width), {{2, 300, width}, {width}}, [](const Inputs& in) {
            return rms_norm(in[0], in[1], {.floor = 1e-12f, .activation = Activation::silu});
        });
    }
    compare("layer_norm_modulate 8200", {{1, 5, 8200}, {1, 1, 8200}, {1, 1, 8200}},
            [](const Inputs& in) { return layer_norm_modulate(in[0], in[1], in[2]); });
    // Wide rows in registers: fewer rows than blocks and many more, widths that fill the threads or not, slices.
    for (int64_t width : {1040, 1536, 2240, 2304, 3072}) {
        for (int64_t rows : {1, 1300}) {
            compare(join("rms_norm ", rows, " x ", width), {{rows, width}, {width}}, [](const Inputs& in) {
                return rms_norm(in[0], in[1], {.eps = 1e-3f, .weight_offset = 1});
            });
        }
        compare(join("rms_norm of a slice, ", width), {{2, 30, 3 * width}, {width}}, [&](const Inputs& in) {
            return rms_norm(in[0].cols_slice(width, width), in[1],
                            {.eps = 1e-3f, .activation = Activation::gelu_tanh});
        });
        compare(join("rms_norm without a weight, ", width), {{70, width}},
                [](const Inputs& in) { return rms_norm(in[0], {}, {.floor = 1e-12f}); });
    }
}

TEST(GradientSizes, LinearAttention) {
    struct Size {
        int64_t head, heads, batch;
    };
    // The last: many heads of 32 channels, a block each.
    for (auto [head, heads, batch] : {Size{12, 2, 2}, Size{112, 2, 2}, Size{32, 8, 9}}) {
        int64_t width = heads * head, count = heads;
        Rope rope = rope_3d({3, 9, 13}, head, 10000, 0, kCpu);
        compare(
            join("linear_attention ", head), {{batch, 351, 3 * width}, {width}, {width}},
            [&](const Inputs& in) {
                LinearAttentionOptions options{
                    .heads = count, .q_norm = in[1], .k_norm = in[2], .eps = 1e-3f, .rope = there(rope, in)};
                return linear_attention(in[0].cols_slice(0, width), in[0].cols_slice(width, width),
                                        in[0].cols_slice(2 * width, width), options);
            },
            4e-2);
    }
}

TEST(GradientSizes, Attention) {
    Tensor mask = full({2, 77}, 1, DType::I32);
    for (int64_t i = 60; i < 77; ++i) mask.data<int32_t>()[i] = 0;
    compare(
        "cross", {{2, 333, 224}, {2, 77, 224}, {2, 77, 224}},
        [&](const Inputs& in) {
            return attention(in[0], in[1], in[2], mask.to(in[0].device()),
                             {.heads = 2, .kv_heads = 2, .scale = 0.1f});
        },
        2e-2);
    for (int64_t width : {32, 64}) {
        compare(
            join("cross, narrow heads ", width),
            {{2, 150, 3 * width}, {2, 130, 3 * width}, {2, 130, 3 * width}},
            [&](const Inputs& in) {
                return attention(in[0], in[1], in[2], {}, {.heads = 3, .kv_heads = 3, .scale = 0.2f});
            },
            2e-2);
    }
    compare(
        "causal, grouped, capped, window", {{2, 130, 128}, {2, 130, 64}, {2, 130, 64}},
        [&](const Inputs& in) {
            return attention(
                in[0], in[1], in[2], {},
                {.heads = 4, .kv_heads = 2, .scale = 0.2f, .soft_cap = 5, .causal = true, .window = 50});
        },
        2e-2);
}

TEST(GradientSizes, MixFfn) {
    for (int64_t inner : {6, 96, 160}) {
        compare(
            join("depthwise_glu ", inner), {{2, 3, 13, 17, 2 * inner}, {3, 3, 2 * inner}, {2 * inner}},
            [](const Inputs& in) { return depthwise_glu(in[0], in[1], in[2]); }, 2e-2);
    }
    // Frames lower than a strip, whole strips and others, one and two columns, channels of several blocks with a rest.
    for (const Shape& size :
         std::vector<Shape>{{1, 1}, {1, 9}, {5, 4}, {6, 1}, {7, 2}, {12, 5}, {30, 52}, {22, 3}}) {
        compare(
            join("depthwise_glu ", size), {{2, 2, size[0], size[1], 28}, {3, 3, 28}, {28}},
            [](const Inputs& in) { return depthwise_glu(in[0], in[1], in[2]); }, 2e-2);
    }
    compare(
        "depthwise_glu 514", {{3, 1, 8, 5, 2 * 514}, {3, 3, 2 * 514}, {2 * 514}},
        [](const Inputs& in) { return depthwise_glu(in[0], in[1], in[2]); }, 2e-2);
    compare("temporal_conv", {{2, 5, 39, 96}, {96, 3, 96}, {2, 1, 96}, {2, 5, 39, 96}}, [](const Inputs& in) {
        return temporal_conv(in[0], in[1], {}, {.gate = in[2], .residual = in[3]});
    });
}

TEST(GradientSizes, Conv3d) {
    for (int64_t channels : {3, 16, 40}) {
        compare(join("3x3x3 with a past, ", channels),
                {{2, 3, 17, 23, channels}, {24, 3, 3, 3, channels}, {24}, {2, 2, 17, 23, channels}},
                [](const Inputs& in) {
                    return conv3d(in[0], in[1], in[2],
                                  {.pad_before = {0, 1, 1}, .pad_after = {0, 1, 1}, .past = in[3]});
                });
        compare(join("halved, ", channels), {{1, 2, 18, 24, channels}, {16, 1, 3, 3, channels}, {16}},
                [](const Inputs& in) {
                    return conv3d(in[0], in[1], in[2], {.stride = {1, 2, 2}, .pad_after = {0, 1, 1}});
                });
    }
    compare("in time alone", {{2, 5, 6, 37, 48}, {96, 3, 1, 1, 48}, {96}}, [](const Inputs& in) {
        return conv3d(in[0], in[1], in[2], {.pad_before = {2, 0, 0}});
    });
    compare("high, few channels", {{2, 3, 70, 45, 32}, {32, 3, 3, 3, 32}, {32}}, [](const Inputs& in) {
        return conv3d(in[0], in[1], in[2], {.pad_before = {2, 1, 1}, .pad_after = {0, 1, 1}});
    });
    compare("to the three colours", {{1, 3, 34, 40, 32}, {3, 3, 3, 3, 32}, {3}}, [](const Inputs& in) {
        return conv3d(in[0], in[1], in[2], {.pad_before = {2, 1, 1}, .pad_after = {0, 1, 1}});
    });
    compare("wide, without padding", {{1, 4, 6, 70, 96}, {48, 3, 3, 3, 96}, {48}},
            [](const Inputs& in) { return conv3d(in[0], in[1], in[2], {}); });
    compare("reflect and replicate", {{1, 3, 9, 11, 16}, {8, 3, 3, 3, 16}, {8}}, [](const Inputs& in) {
        return conv3d(in[0], in[1], in[2],
                      {.pad_before = {2, 1, 1},
                       .pad_after = {0, 1, 1},
                       .time_mode = PadMode::replicate,
                       .space_mode = PadMode::reflect});
    });
}

TEST(GradientSizes, TextEncoderAndResampling) {
    Tensor ids = empty({4, 90}, DType::I32);
    for (int64_t i = 0; i < ids.numel(); ++i) ids.data<int32_t>()[i] = static_cast<int32_t>(i * i % 50);
    compare("embedding", {{64, 72}},
            [&](const Inputs& in) { return embedding(ids.to(in[0].device()), in[0], 3); });
    compare("gelu_multiply", {{3, 50, 128}}, [](const Inputs& in) {
        return gelu_multiply(in[0].cols_slice(0, 64), in[0].cols_slice(64, 64));
    });
    compare("upsample_nearest", {{1, 2, 5, 7, 24}}, [](const Inputs& in) { return upsample_nearest(in[0]); });
}
