// Wrong arguments: one error that names the op and shows the tensors that do not fit. Nothing is computed, nothing crashes.
#include <gtest/gtest.h>

#include <functional>

#include "ops/attention.h"
#include "ops/conv.h"
#include "ops/depth_to_space.h"
#include "ops/embed.h"
#include "ops/layout.h"
#include "ops/linear.h"
#include "ops/linear_attention.h"
#include "ops/norm.h"
#include "ops/pointwise.h"
#include "ops/rope.h"

namespace sana {
namespace {

Tensor t(const Shape& shape, DType dtype = DType::F32) { return zeros(shape, dtype); }
const DType kHalf = DType::BF16;

struct Wrong {
    const char* op;
    std::function<void()> call;
    std::vector<std::string> parts;  // of the message, besides the name
};

void expect_errors(const std::vector<Wrong>& list) {
    for (const Wrong& wrong : list) {
        std::string wanted = wrong.op;
        for (const std::string& part : wrong.parts) wanted += " | " + part;
        try {
            wrong.call();
            ADD_FAILURE() << "no error: " << wanted;
        } catch (const Error& error) {
            std::string message = error.what();
            EXPECT_TRUE(message.starts_with(wrong.op)) << wanted << "\n" << message;
            for (const std::string& part : wrong.parts) {
                EXPECT_NE(message.find(part), std::string::npos) << wanted << "\n" << message;
            }
        }
    }
}

TEST(OpErrors, Linear) {
    auto call = [](const Tensor& x, const Tensor& w, const Tensor& bias = {}, const Epilogue& out = {}) {
        return [=] { linear(x, w, bias, out); };
    };
    expect_errors({
        {"linear", call(t({2, 3, 8}), t({5, 7})), {"fp32[2, 3, 8]", "fp32[5, 7]"}},
        {"linear", call(t({2, 3, 8}), t({5, 8}), t({4})), {"fp32[5, 8]", "fp32[4]"}},
        {"linear", call(t({2, 3, 8}), t({5, 8}, kHalf)), {"fp32[2, 3, 8]", "bf16[5, 8]", ".to(fp32)"}},
        {"linear", call(t({2, 3, 8}), t({5, 8, 1})), {"fp32[5, 8, 1]"}},
        {"linear", call(t({2, 3, 8}), t({5, 10}).cols_slice(0, 8)), {"fp32[5, 8]", "strided"}},
        {"linear", call(t({2, 3, 8}), Tensor()), {"weight", "missing"}},
        {"linear", call(Tensor(), t({5, 8})), {"x[", "missing"}},
        {"linear", call(t({2, 3, 8}), t({5, 8}), {}, {.gate = t({2, 2, 5})}), {"fp32[2, 2, 5]", "[2, 3, 5]"}},
        {"linear", call(t({2, 3, 8}), t({5, 8}), {}, {.gate = t({2, 0, 5})}), {"fp32[2, 0, 5]"}},
        {"linear", call(t({2, 3, 8}), t({5, 8}), {}, {.gate = t({1, 1, 5})}), {"fp32[1, 1, 5]"}},
        {"linear",
         call(t({2, 3, 8}), t({5, 8}), {}, {.residual = t({2, 3, 8})}),
         {"fp32[2, 3, 8]", "[2, 3, 5]"}},
        {"linear", call(t({2, 8}, DType::I32), t({5, 8}, DType::I32)), {"int32[2, 8]"}},
    });
}

TEST(OpErrors, Norms) {
    expect_errors({
        {"layer_norm_modulate",
         [] {
             layer_norm_modulate(t({2, 6, 8}), t({2, 1, 7}), t({2, 1, 8}));
         },
         {"fp32[2, 6, 8]", "fp32[2, 1, 7]"}},
        {"layer_norm_modulate",
         [] {
             layer_norm_modulate(t({2, 6, 8}), t({2, 4, 8}), t({2, 4, 8}));
         },
         {"N=6", "G=4"}},
        {"layer_norm_modulate",
         [] {
             layer_norm_modulate(t({2, 6, 8}), t({2, 0, 8}), t({2, 0, 8}));
         },
         {"G=0"}},
        {"layer_norm_modulate",
         [] {
             layer_norm_modulate(t({2, 6, 8}), t({2, 1, 8}), t({2, 2, 8}));
         },
         {"fp32[2, 1, 8]", "fp32[2, 2, 8]"}},
        {"layer_norm_modulate",
         [] {
             layer_norm_modulate(t({2, 6, 8}), t({2, 1, 8}), {});
         },
         {"scale", "missing"}},
        {"layer_norm_modulate",
         [] {
             layer_norm_modulate(t({2, 6, 8}, kHalf), t({2, 1, 8}), t({2, 1, 8}));
         },
         {"bf16[2, 6, 8]", "fp32[2, 1, 8]", ".to(bf16)"}},
        {"rms_norm",
         [] {
             rms_norm(t({2, 6, 8}), t({7}), {});
         },
         {"fp32[2, 6, 8]", "fp32[7]"}},
        {"rms_norm",
         [] {
             rms_norm(t({2, 6, 8}), t({8}, kHalf), {});
         },
         {"fp32[2, 6, 8]", "bf16[8]"}},
        {"rms_norm", [] { rms_norm({}, t({8}), {}); }, {"x[", "missing"}},
    });
}

TEST(OpErrors, Attention) {
    auto call = [](const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
                   AttentionOptions o) { return [=] { attention(q, k, v, mask, o); }; };
    Tensor q = t({2, 3, 8}), k = t({2, 5, 8});
    AttentionOptions two{.heads = 2, .kv_heads = 2};
    expect_errors({
        {"attention", call(q, t({1, 5, 8}), t({1, 5, 8}), {}, two), {"fp32[2, 3, 8]", "fp32[1, 5, 8]"}},
        {"attention", call(q, k, t({2, 4, 8}), {}, two), {"fp32[2, 5, 8]", "fp32[2, 4, 8]"}},
        {"attention", call(q, k, k, t({2, 4}, DType::I32), two), {"fp32[2, 5, 8]", "int32[2, 4]"}},
        {"attention", call(q, k, k, t({2, 5}), two), {"mask", "int32"}},
        {"attention", call(q, k, k, {}, {.heads = 3, .kv_heads = 3}), {"3", "fp32[2, 3, 8]"}},
        {"attention", call(q, k, k, {}, {.heads = 2, .kv_heads = 1}), {"fp32[2, 3, 8]", "fp32[2, 5, 8]"}},
        {"attention", call(q, k, k, {}, {.heads = 0, .kv_heads = 0}), {"0"}},
        {"attention", call(q, k, {}, {}, two), {"v[", "missing"}},
        {"attention", call(q, k, t({2, 5, 8}, kHalf), {}, two), {"bf16[2, 5, 8]", "fp32[2, 3, 8]"}},
    });
}

TEST(OpErrors, LinearAttention) {
    Tensor q = t({2, 6, 16}), weight = t({16});
    Rope rope = rope_3d({1, 2, 3}, 8, 10000, 0, kCpu);
    LinearState past{t({2, 2, 8, 8}), t({2, 2, 8})}, small{t({1, 2, 8, 8}), t({1, 2, 8})},
        low{t({2, 2, 8, 8}, kHalf), t({2, 2, 8}, kHalf)};
    auto call = [&](auto change) {
        LinearAttentionOptions o{.heads = 2, .q_norm = weight, .k_norm = weight, .rope = rope, .past = &past};
        Tensor k = q, v = q;
        change(o, k, v);
        return [=, this_q = q] { linear_attention(this_q, k, v, o); };
    };
    using O = LinearAttentionOptions;
    expect_errors({
        {"linear_attention",
         call([](O&, Tensor& k, Tensor&) {
             k = t({2, 5, 16});
         }),
         {"fp32[2, 6, 16]", "fp32[2, 5, 16]"}},
        {"linear_attention",
         call([](O&, Tensor&, Tensor& v) {
             v = t({2, 6, 16}, kHalf);
         }),
         {"bf16[2, 6, 16]"}},
        {"linear_attention",
         call([](O& o, Tensor&, Tensor&) { o.heads = 3; }),
         {"3 heads", "fp32[2, 6, 16]"}},
        {"linear_attention", call([](O& o, Tensor&, Tensor&) { o.q_norm = {}; }), {"q_norm", "missing"}},
        {"linear_attention", call([](O& o, Tensor&, Tensor&) { o.rope = {}; }), {"cos", "missing"}},
        {"linear_attention",
         call([](O& o, Tensor&, Tensor&) { o.k_norm = t({8}); }),
         {"fp32[8]", "fp32[2, 6, 16]"}},
        {"linear_attention",
         call([](O& o, Tensor&, Tensor&) {
             o.rope = rope_3d({1, 2, 2}, 8, 10000, 0, kCpu);
         }),
         {"fp32[4, 4]", "fp32[2, 6, 16]"}},
        {"linear_attention",
         call([&](O& o, Tensor&, Tensor&) { o.past = &small; }),
         {"fp32[1, 2, 8, 8]", "fp32[2, 6, 16]"}},
        {"linear_attention", call([&](O& o, Tensor&, Tensor&) { o.past = &low; }), {"bf16[2, 2, 8, 8]"}},
    });
}

TEST(OpErrors, Rope) {
    Rope rope = rope_1d(6, 8, 10000, kCpu), low{rope.cos.to(kHalf), rope.sin.to(kHalf)};
    expect_errors({
        {"rotate_half",
         [&] {
             rotate_half(t({2, 5, 16}), rope, 2);
         },
         {"fp32[2, 5, 16]", "fp32[6, 4]"}},
        {"rotate_half",
         [&] {
             rotate_half(t({2, 6, 16}), rope, 3);
         },
         {"3 heads", "fp32[2, 6, 16]"}},
        {"rotate_half",
         [&] {
             rotate_half(t({2, 6, 16}), {rope.cos, {}}, 2);
         },
         {"sin", "missing"}},
        {"rotate_half",
         [&] {
             rotate_half(t({2, 6, 16}), low, 2);
         },
         {"bf16[6, 4]", "fp32"}},
        {"rope", [] { rope_1d(6, 7, 10000, kCpu); }, {"7"}},
        {"rope",
         [] {
             rope_3d({1, 2, 3}, 9, 10000, 0, kCpu);
         },
         {"9"}},
    });
}

TEST(OpErrors, Convolutions) {
    auto conv = [](const Tensor& x, const Tensor& w, const Tensor& bias, const Conv3dOptions& o) {
        return [=] { conv3d(x, w, bias, o); };
    };
    Tensor x = t({1, 2, 4, 5, 8}), w = t({6, 3, 3, 3, 8});
    std::array<int64_t, 3> one{1, 1, 1};
    Conv3dOptions same{.pad_before = one, .pad_after = one};
    auto with = [&](auto change) {
        Conv3dOptions o = same;
        change(o);
        return o;
    };
    using O = Conv3dOptions;
    expect_errors({
        {"conv3d", conv(x, t({6, 3, 3, 3, 7}), {}, same), {"fp32[1, 2, 4, 5, 8]", "fp32[6, 3, 3, 3, 7]"}},
        {"conv3d", conv(x, w, t({5}), same), {"fp32[6, 3, 3, 3, 8]", "fp32[5]"}},
        {"conv3d", conv(x, w, {}, {}), {"kernel of 3", "fp32[1, 2, 4, 5, 8]"}},
        {"conv3d",
         conv(x, w, {}, with([](O& o) {
                  o.stride = {0, 1, 1};
              })),
         {"stride"}},
        {"conv3d",
         conv(x, w, {}, with([](O& o) {
                  o.pad_before = {-1, 1, 1};
              })),
         {"-1"}},
        {"conv3d",
         conv(x, w, {}, with([](O& o) {
                  o.past = t({1, 1, 4, 4, 8});
              })),
         {"fp32[1, 1, 4, 4, 8]"}},
        {"conv3d",
         conv(x, w, {}, with([](O& o) {
                  o.residual = t({1, 2, 4, 5, 8});
              })),
         {"fp32[1, 2, 4, 5, 8]"}},
        {"conv3d", conv(x, w, {}, with([](O& o) { o.time_mode = PadMode::reflect; })), {"padded"}},
        {"conv3d",
         conv(x, t({6, 1, 9, 9, 8}), {}, with([](O& o) {
                  o.pad_before = o.pad_after = {0, 4, 4};
                  o.space_mode = PadMode::reflect;
              })),
         {"reflection", "fp32[1, 2, 4, 5, 8]"}},
        {"conv3d",
         conv(t({1, 0, 4, 5, 8}), w, {}, with([](O& o) {
                  o.pad_before = {3, 1, 1};
                  o.time_mode = PadMode::replicate;
              })),
         {"fp32[1, 0, 4, 5, 8]"}},
        {"conv3d", conv(t({1, 2, 4, 5, 9}).cols_slice(0, 8), w, {}, same), {"dense"}},
        {"conv3d", conv(x, {}, {}, same), {"weight", "missing"}},
        {"conv3d", conv(x, w.to(kHalf), {}, same), {"bf16[6, 3, 3, 3, 8]", "fp32[1, 2, 4, 5, 8]"}},
        {"upsample_nearest",
         [] {
             upsample_nearest(t({2, 3, 4, 5}));
         },
         {"fp32[2, 3, 4, 5]"}},
        {"upsample_nearest", [] { upsample_nearest({}); }, {"no input"}},
        {"depth_to_space",
         [] {
             depth_to_space(t({1, 2, 3, 4, 9}), {}, {.stride = {1, 2, 2}});
         },
         {"1 x 2 x 2", "fp32[1, 2, 3, 4, 9]"}},
        {"depth_to_space",
         [] {
             depth_to_space(t({1, 2, 3, 4, 8}), {}, {.stride = {2, 2, 2}, .drop = 2});
         },
         {"2 of 2 frames"}},
        {"depth_to_space",
         [] {
             depth_to_space(t({1, 2, 3, 4, 8}), t({1, 2, 3, 4, 3}), {.stride = {2, 2, 2}});
         },
         {"fp32[1, 2, 3, 4, 3]", "fp32[1, 2, 3, 4, 8]"}},
        {"depth_to_space",
         [] {
             depth_to_space(t({1, 2, 3, 4, 8}), t({1, 2, 3, 5, 8}), {.stride = {2, 2, 2}});
         },
         {"fp32[1, 2, 3, 5, 8]"}},
        {"depthwise_glu",
         [&] {
             depthwise_glu(x, t({3, 3, 6}), t({8}));
         },
         {"fp32[1, 2, 4, 5, 8]", "fp32[3, 3, 6]"}},
        {"depthwise_glu",
         [&] {
             depthwise_glu(t({1, 1, 2, 2, 7}), t({3, 3, 7}), t({7}));
         },
         {"even"}},
        {"depthwise_glu", [&] { depthwise_glu(x, {}, t({8})); }, {"weight", "missing"}},
    });
}

TEST(OpErrors, TemporalConv) {
    Tensor x = t({1, 2, 4, 8}), w = t({8, 3, 8});
    auto call = [](const Tensor& in, const Tensor& weight, const Tensor& past, const Epilogue& out) {
        return [=] { temporal_conv(in, weight, past, out); };
    };
    expect_errors({
        {"temporal_conv", call(x, t({8, 3, 7}), {}, {}), {"fp32[8, 3, 7]"}},
        {"temporal_conv", call(x, t({8, 2, 8}), {}, {}), {"fp32[8, 2, 8]"}},
        {"temporal_conv", call(x, w, t({1, 2, 4, 8}), {}), {"fp32[1, 2, 4, 8]"}},
        {"temporal_conv", call(x, w, {}, {.gate = t({1, 3, 8})}), {"fp32[1, 3, 8]", "fp32[1, 2, 4, 8]"}},
        {"temporal_conv", call(x, w, {}, {.gate = t({1, 0, 8})}), {"fp32[1, 0, 8]", "fp32[1, 2, 4, 8]"}},
        {"temporal_conv", call(x, w, {}, {.residual = t({1, 2, 4, 7})}), {"fp32[1, 2, 4, 7]"}},
        {"temporal_conv", call(x, w, {}, {.activation = Activation::silu}), {"activation"}},
        {"temporal_conv", call(x, {}, {}, {}), {"weight", "missing"}},
    });
}

TEST(OpErrors, Pointwise) {
    Tensor a = t({2, 3}), b = t({3, 2});
    expect_errors({
        {"add", [&] { add(a, b); }, {"fp32[2, 3]", "fp32[3, 2]"}},
        {"add", [&] { add(a, {}); }, {"none"}},
        {"add",
         [&] {
             add(a, t({2, 3}, kHalf));
         },
         {"bf16[2, 3]", ".to(fp32)"}},
        {"gelu_multiply", [&] { gelu_multiply(a, b); }, {"fp32[2, 3]", "fp32[3, 2]"}},
        {"clamp", [] { clamp({}, 0, 1); }, {"no input"}},
        {"activate", [] { activate(t({3}, DType::I64), Activation::relu); }, {"int64[3]"}},
        {"affine", [&] { affine(a, t({2}), {}); }, {"fp32[2, 3]", "fp32[2]"}},
        {"affine", [&] { affine({}, t({2}), {}); }, {"x[", "missing"}},
        {"combine", [] { combine({}); }, {"0"}},
        {"combine",
         [&] {
             combine({{1, a}, {1, a}, {1, a}, {1, a}, {1, a}});
         },
         {"5"}},
        {"combine",
         [&] {
             combine({{1, a}, {2, b}});
         },
         {"fp32[2, 3]", "fp32[3, 2]"}},
        {"combine",
         [&] {
             combine({{1, a}, {2, t({2, 3}, kHalf)}});
         },
         {"bf16[2, 3]"}},
        {"group_mean", [&] { group_mean(a, 2); }, {"2", "fp32[2, 3]"}},
        {"group_mean", [&] { group_mean(a, 0); }, {"0", "fp32[2, 3]"}},
    });
}

TEST(OpErrors, Embeddings) {
    Tensor table = t({5, 8}), ids = t({1, 3}, DType::I32);
    auto with_id = [&](int32_t id) { return from_vector(std::vector<int32_t>{0, id, 4}, {1, 3}); };
    expect_errors({
        {"embedding", [&] { embedding(with_id(5), table, 1); }, {"id 5", "position 1", "vocabulary of 5"}},
        {"embedding", [&] { embedding(with_id(-1), table, 1); }, {"id -1"}},
        {"embedding",
         [&] {
             embedding(t({1, 3}), table, 1);
         },
         {"fp32[1, 3]", "int32"}},
        {"embedding", [&] { embedding(t({3}, DType::I32), table, 1); }, {"int32[3]"}},
        {"embedding",
         [&] {
             embedding(ids, t({5, 8, 1}), 1);
         },
         {"fp32[5, 8, 1]"}},
        {"embedding", [&] { embedding({}, table, 1); }, {"ids", "missing"}},
        {"timestep_embedding",
         [] {
             timestep_embedding(t({2, 2}), 8);
         },
         {"fp32[2, 2]"}},
        {"timestep_embedding", [] { timestep_embedding(t({2}, kHalf), 8); }, {"bf16[2]"}},
        {"timestep_embedding", [] { timestep_embedding(t({2}), 7); }, {"7"}},
    });
    EXPECT_THROW(embedding(with_id(5), table, 1), InputError);
}

TEST(OpErrors, Layout) {
    Tensor a = t({2, 3}), b = t({3, 2});
    expect_errors({
        {"concat", [] { concat({}, 0); }, {"nothing"}},
        {"concat",
         [&] {
             concat({a, b}, 0);
         },
         {"fp32[2, 3]", "fp32[3, 2]"}},
        {"concat",
         [&] {
             concat({a, t({2, 3}, kHalf)}, 0);
         },
         {"fp32[2, 3]", "bf16[2, 3]"}},
        {"concat",
         [&] {
             concat({a, a}, 2);
         },
         {"axis 2", "fp32[2, 3]"}},
        {"concat",
         [&] {
             concat({a, {}}, 0);
         },
         {"none"}},
        {"slice", [&] { slice(a, 0, 1, 2); }, {"axis 0", "fp32[2, 3]"}},
        {"slice", [&] { slice(a, 1, -1, 2); }, {"axis 1", "fp32[2, 3]"}},
        {"slice", [&] { slice(a, 1, 1, INT64_MAX); }, {"axis 1", "fp32[2, 3]"}},
        {"slice", [&] { slice(a, -3, 0, 1); }, {"axis -3", "fp32[2, 3]"}},
        {"slice", [] { slice({}, 0, 0, 0); }, {"axis 0", "none"}},
        {"permute", [&] { permute(a, {0}); }, {"fp32[2, 3]"}},
        {"permute",
         [&] {
             permute(a, {1, 1});
         },
         {"fp32[2, 3]", "twice"}},
        {"permute",
         [&] {
             permute(a, {0, 2});
         },
         {"axis 2", "fp32[2, 3]"}},
    });
}

}  // namespace
}  // namespace sana
