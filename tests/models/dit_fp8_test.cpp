// The transformer with E4M3 weights: which layers take part, and how far the prediction moves.
#include <gtest/gtest.h>

#include "core/random.h"
#include "device.h"
#include "models/dit/dit.h"

namespace sana {
namespace {

DiTConfig small_config() {
    DiTConfig c;
    c.in_channels = c.out_channels = 8;
    c.heads = c.cross_heads = 4;
    c.head_dim = c.cross_head_dim = 24;
    c.layers = 3;
    c.mlp_ratio = 3;
    c.caption_channels = 64;
    return c;
}

DiT drawn(DType dtype) {
    DiT dit(small_config());
    draw(parameters(dit), 7, dtype, test_device());
    return dit;
}

Tensor predicted(const DiT& dit) {
    Device device = test_device();
    TextContext text = dit.prepare_text(randn_philox({2, 20, 64}, 1).to(device), {});
    Tensor latents = randn_philox({2, 3, 8, 10, 8}, 2).to(device), t = full({2}, 500, DType::F32, device);
    return dit.forward(latents, t, text).to(kCpu);
}

TEST(DiTFp8, TakesTheLargeProductsOfTheBlocks) {
    DiT dit = drawn(DType::BF16);
    int64_t taken = 0;
    for (const NamedParameter& p : parameters(dit)) {
        bool codes = quantise(p, dit_fp8_rule());
        taken += codes;
        EXPECT_EQ(codes, p.parameter->codes.defined() && !p.parameter->value.defined()) << p.name;
        bool block = p.name.starts_with("blocks.");
        EXPECT_FALSE(codes && (!block || p.name.find("norm") != std::string::npos ||
                               p.name.find("cross.kv") != std::string::npos))
            << p.name;
    }
    EXPECT_EQ(taken, 3 * 6);
    EXPECT_EQ(dit.dtype(), DType::BF16);
}

TEST(DiTFp8, PredictionStaysNearThatOfBf16) {
    DiT dit = drawn(DType::BF16);
    Tensor exact = predicted(dit);
    for (const NamedParameter& p : parameters(dit)) quantise(p, dit_fp8_rule());
    Tensor codes = predicted(dit);
    double error = relative_l2(codes, exact);
    // Two operands rounded to 3 bits of mantissa move a product by 3.7e-2 of its size; what the blocks add is a part of
    // the residual stream.
    EXPECT_LT(error, 3e-2);
    EXPECT_GT(error, 1e-4);  // it is another computation
    EXPECT_EQ(relative_l2(predicted(dit), codes), 0);
}

TEST(DiTFp8, KeptLayersAreThoseOfBf16) {
    DiT dit = drawn(DType::BF16);
    Tensor exact = predicted(dit);
    Fp8Rule rule = dit_fp8_rule();
    rule.keep = parse_globs("blocks.*.ffn.*, *.attention.*,*.cross.*");
    for (const NamedParameter& p : parameters(dit)) EXPECT_FALSE(quantise(p, rule)) << p.name;
    EXPECT_EQ(relative_l2(predicted(dit), exact), 0);
}

TEST(DiTFp8, AStudyChangesNothingAndFindsEachLayersError) {
    DiT dit = drawn(DType::BF16);
    Tensor exact = predicted(dit);
    for (const NamedParameter& p : parameters(dit)) quantise(p, dit_fp8_rule(), true);
    Fp8Study study;
    EXPECT_EQ(relative_l2(predicted(dit), exact), 0);
    EXPECT_EQ(study.layers.size(), 3 * 6);
    for (const Fp8Study::Layer& layer : study.layers) {
        EXPECT_GT(layer.error, 1e-2) << layer.name;
        EXPECT_LT(layer.error, 6e-2) << layer.name;
    }
}

}  // namespace
}  // namespace sana
