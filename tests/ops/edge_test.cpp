// Values at the edges: what overflows, what is empty, what must not be hidden; parts that must agree with the whole. On the
// device of the tests (device.h).
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "bench/case.h"
#include "device.h"
#include "ops/attention.h"
#include "ops/conv.h"
#include "ops/layout.h"
#include "ops/linear.h"
#include "ops/linear_attention.h"
#include "ops/norm.h"
#include "ops/pointwise.h"

namespace sana {
namespace {

using cases::Generator;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Tensor vector_of(const std::vector<float>& values) {
    return on_test_device(from_vector(values, {static_cast<int64_t>(values.size())}));
}

Tensor normal(Generator& g, const Shape& shape, DType dtype = DType::F32) {
    return on_test_device(g.normal(shape).value.to(dtype));
}

// The same with other values at [first, first + count).
Tensor spoiled(const Tensor& x, float value, int64_t first = 0, int64_t count = 1) {
    std::vector<float> values = to_vector<float>(x);
    std::fill_n(values.begin() + first, count, value);
    return on_test_device(from_vector(values, x.shape()).to(x.dtype()));
}

int64_t count_nan(const Tensor& x) {
    int64_t count = 0;
    for (double v : to_vector<double>(x)) count += std::isnan(v) ? 1 : 0;
    return count;
}

TEST(OpEdges, ActivationsFarFromZero) {
    std::vector<float> values{-1e30f, -100, -88, 0, 88, 100, 1e30f, kInfinity, kNan};
    Tensor x = vector_of(values);
    for (Activation a : {Activation::silu, Activation::gelu_tanh}) {
        std::vector<float> y = to_vector<float>(activate(x, a));
        for (size_t i : {0, 1, 2, 3}) EXPECT_LE(std::abs(y[i]), 1e-35f) << i;
        for (size_t i : {4, 5, 6, 7}) EXPECT_EQ(y[i], values[i]) << i;
        EXPECT_TRUE(std::isnan(y[8]));
    }
}

TEST(OpEdges, HalfOverflowsToInfinityNotToGarbage) {
    Tensor x = on_test_device(full({20}, 60000, DType::F16));
    for (double v : to_vector<double>(add(x, x))) EXPECT_EQ(v, INFINITY);
}

// NaN in one element of an input must reach every result that depends on it: a run that went wrong has to show.
TEST(OpEdges, NanIsNotHidden) {
    Generator g;
    for (DType dtype : {DType::F32, DType::BF16, DType::F16, DType::F64}) {
        if (dtype == DType::F64 && test_device() != kCpu) continue;  // only the CPU computes in fp64
        auto poisoned = [&](const Shape& shape) { return spoiled(normal(g, shape, dtype), kNan); };
        auto clean = [&](const Shape& shape) { return normal(g, shape, dtype); };
        for (Activation a : {Activation::relu, Activation::silu, Activation::gelu_tanh}) {
            EXPECT_EQ(count_nan(activate(poisoned({40}), a)), 1)
                << join(dtype, " activation ", static_cast<int>(a));
        }
        EXPECT_EQ(count_nan(clamp(poisoned({40}), -1, 1)), 1);
        EXPECT_EQ(count_nan(linear(poisoned({2, 8}), clean({33, 8}))), 33);
        EXPECT_EQ(count_nan(linear(poisoned({2, 8}), clean({33, 8}), {}, {.activation = Activation::relu})),
                  33);
        EXPECT_EQ(count_nan(layer_norm_modulate(poisoned({1, 2, 8}), clean({1, 1, 8}), clean({1, 1, 8}))), 8);
        EXPECT_EQ(count_nan(rms_norm(poisoned({2, 8}), {}, {})), 8);
        EXPECT_EQ(count_nan(rms_norm(poisoned({2, 8}), {}, {.floor = 1e-12f})), 8);
        EXPECT_EQ(count_nan(conv3d(poisoned({1, 1, 3, 3, 4}), clean({5, 1, 3, 3, 4}), {}, {})), 5);
        EXPECT_EQ(count_nan(depthwise_glu(poisoned({1, 1, 3, 3, 4}), clean({3, 3, 4}), clean({4}))), 4);
        EXPECT_EQ(count_nan(temporal_conv(poisoned({1, 2, 3, 4}), clean({4, 3, 4}), {}, {})), 8);

        // A query: its row of that head. A key or value: every query that sees it.
        AttentionOptions two{.heads = 2, .kv_heads = 2};
        EXPECT_EQ(count_nan(attention(poisoned({1, 3, 8}), clean({1, 5, 8}), clean({1, 5, 8}), {}, two)), 4);
        EXPECT_EQ(count_nan(attention(clean({1, 3, 8}), poisoned({1, 5, 8}), clean({1, 5, 8}), {}, two)), 12);
        EXPECT_EQ(count_nan(attention(clean({1, 3, 8}), poisoned({1, 1, 8}), clean({1, 1, 8}), {}, two)), 12);
        EXPECT_EQ(count_nan(attention(clean({1, 3, 8}), clean({1, 5, 8}), poisoned({1, 5, 8}), {}, two)), 3);
        // Heads of released models and more queries than a block has, for which there is a kernel of its own.
        Shape queries{1, 150, 224}, keys{1, 70, 224};
        EXPECT_EQ(count_nan(attention(poisoned(queries), clean(keys), clean(keys), {}, two)), 112);
        EXPECT_EQ(count_nan(attention(clean(queries), poisoned(keys), clean(keys), {}, two)), 150 * 112);
        EXPECT_EQ(count_nan(attention(clean(queries), clean(keys), poisoned(keys), {}, two)), 150);

        LinearAttentionOptions o;
        o.heads = 2;
        o.q_norm = clean({16});
        o.k_norm = clean({16});
        o.rope = rope_3d({1, 2, 3}, 8, 10000, 0, test_device());
        EXPECT_EQ(count_nan(linear_attention(poisoned({1, 6, 16}), clean({1, 6, 16}), clean({1, 6, 16}), o)),
                  16);
        EXPECT_EQ(count_nan(linear_attention(clean({1, 6, 16}), poisoned({1, 6, 16}), clean({1, 6, 16}), o)),
                  96);
        // The width of released models, for which there are kernels of their own.
        o.q_norm = clean({224});
        o.k_norm = clean({224});
        o.rope = rope_3d({1, 7, 6}, 112, 10000, 0, test_device());
        Shape wide{1, 42, 224};
        EXPECT_EQ(count_nan(linear_attention(poisoned(wide), clean(wide), clean(wide), o)), 224);
        EXPECT_EQ(count_nan(linear_attention(clean(wide), poisoned(wide), clean(wide), o)), 42 * 224);
        EXPECT_EQ(count_nan(linear_attention(clean(wide), clean(wide), poisoned(wide), o)), 42);
    }
}

// All elements equal: no variance, so only the shift is left. The sum of 511 of them is not exact in fp32.
TEST(OpEdges, LayerNormOfConstants) {
    Tensor shift = full({1, 1, 511}, 0.25, DType::F32, test_device()),
           scale = zeros({1, 1, 511}, DType::F32, test_device());
    for (double value : {0.0, 0.1, -3.3, 1234.567, 98765.4, 1e9 / 3, -1e15 / 7}) {
        Tensor y = layer_norm_modulate(full({1, 2, 511}, value, DType::F32, test_device()), shift, scale);
        EXPECT_LE(max_abs_difference(y, full({1, 2, 511}, 0.25, DType::F32)),
                  std::abs(value) < 1e5 ? 1e-3 : 1)
            << value;
    }
}

// What a hidden key holds cannot matter, not even when it is NaN or infinite.
TEST(OpEdges, HiddenKeysAreNotRead) {
    Generator g;
    Tensor mask = on_test_device(from_vector(std::vector<int32_t>{1, 1, 1, 1, 0, 1, 1, 1, 1}, {1, 9}));
    for (auto [width, dtype] : {std::pair{8, DType::F32}, {224, DType::F32}, {224, DType::BF16}}) {
        Tensor q = normal(g, {1, 7, width}, dtype), k = normal(g, {1, 9, width}, dtype),
               v = normal(g, {1, 9, width}, dtype);
        Tensor expected = attention(q, k, v, mask, {.heads = 2, .kv_heads = 2});
        for (float bad : {kNan, kInfinity, -kInfinity, 3e38f}) {
            Tensor k_bad = spoiled(k, bad, 4 * width, width), v_bad = spoiled(v, bad, 4 * width, width);
            Tensor y = attention(q, k_bad, v_bad, mask, {.heads = 2, .kv_heads = 2});
            EXPECT_EQ(max_abs_difference(y, expected), 0) << join(width, " ", dtype, " ", bad);
        }
    }
}

TEST(OpEdges, EmptyMaskGivesZero) {
    Generator g;
    Tensor none = zeros({2, 6}, DType::I32, test_device());
    for (auto [width, dtype] : {std::pair{8, DType::F32}, {224, DType::BF16}}) {
        Tensor y = attention(normal(g, {2, 5, width}, dtype), normal(g, {2, 6, width}, dtype),
                             normal(g, {2, 6, width}, dtype), none, {.heads = 2, .kv_heads = 2});
        for (double v : to_vector<double>(y)) EXPECT_EQ(v, 0);
    }
}

// Two blocks, the second with the first one's state: its total is the whole's, and so are its rows.
TEST(OpEdges, LinearAttentionInBlocks) {
    Generator g;
    Grid grid{5, 3, 4}, front{2, 3, 4}, back{3, 3, 4};
    int64_t heads = 2, width = 12, cut = front.tokens();
    Tensor q = normal(g, {1, grid.tokens(), heads * width}), k = normal(g, q.shape()),
           v = normal(g, q.shape());
    LinearAttentionOptions o;
    o.heads = heads;
    o.q_norm = normal(g, {heads * width});
    o.k_norm = normal(g, {heads * width});
    auto part = [&](const Tensor& x, bool second) {
        return slice(x, 1, second ? cut : 0, second ? back.tokens() : cut);
    };
    LinearState first, both, whole;
    LinearAttentionOptions all = o, one = o, two = o;
    all.rope = rope_3d(grid, width, 10000, 0, test_device());
    all.total = &whole;
    one.rope = rope_3d(front, width, 10000, 0, test_device());
    one.total = &first;
    two.rope = rope_3d(back, width, 10000, front.t, test_device());
    two.past = &first;
    two.total = &both;
    Tensor expected = linear_attention(q, k, v, all);
    linear_attention(part(q, false), part(k, false), part(v, false), one);
    Tensor y = linear_attention(part(q, true), part(k, true), part(v, true), two);
    EXPECT_LE(relative_l2(both.kv, whole.kv), 1e-6);
    EXPECT_LE(relative_l2(both.k_sum, whole.k_sum), 1e-6);
    EXPECT_LE(relative_l2(y, part(expected, true)), 3e-6);
    EXPECT_GT(relative_l2(first.kv, whole.kv), 0.1);

    // The state may be written where it was read.
    two.total = &first;
    linear_attention(part(q, true), part(k, true), part(v, true), two);
    EXPECT_EQ(relative_l2(first.kv, both.kv), 0);
}

// A weight that holds other numbers than at its last use, in memory of the same address.
TEST(OpEdges, ChangedWeightsAreSeen) {
    Generator g;
    Tensor x = normal(g, {1, 2, 5, 6, 8}), w = normal(g, {4, 1, 3, 3, 8});
    Tensor before = conv3d(x, w, {}, {});
    Tensor two = combine({{2, w}});
    w = {};  // its block goes back to the allocator and is given out again
    Tensor same_place = two.clone();
    EXPECT_LE(relative_l2(conv3d(x, same_place, {}, {}), combine({{2, before}})), 1e-6);
}

TEST(OpEdges, SlicesAreViewsWhereTheyCanBe) {
    Tensor x = zeros({1, 4, 5, 6}, DType::F32, test_device());
    EXPECT_EQ(slice(x, 1, 1, 2).storage(), x.storage());
    EXPECT_EQ(slice(x, 3, 1, 2).storage(), x.storage());
    EXPECT_NE(slice(x, 2, 1, 2).storage(), x.storage());
    EXPECT_TRUE(slice(x, 2, 1, 2).dense());
}

}  // namespace
}  // namespace sana
