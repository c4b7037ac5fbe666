// LoRA files of every naming give the sum that their formula says.
#include <gtest/gtest.h>

#include <filesystem>

#include "core/random.h"
#include "io/safetensors.h"
#include "ops/pointwise.h"
#include "pipeline/lora.h"

using namespace sana;

namespace {

DiTConfig config() {
    DiTConfig c;
    c.in_channels = c.out_channels = 4;
    c.heads = c.cross_heads = 2;
    c.head_dim = c.cross_head_dim = 6;
    c.layers = 2;
    c.caption_channels = 8;
    return c;
}

struct Model {
    DiT dit{config()};
    std::vector<NamedParameter> list;
    TensorMap weights;
    explicit Model(bool official = false) {
        list = parameters(dit);
        draw(list, 3, DType::F32);
        weights = save(list, official ? dit_official_names() : dit_diffusers_names(config()));
    }
};

class LoraTest : public ::testing::Test {
protected:
    std::string path =
        (std::filesystem::temp_directory_path() / ("sana-lora-" + std::to_string(getpid()) + ".safetensors"))
            .string();
    void TearDown() override { std::filesystem::remove(path); }
    static Tensor noise(const Shape& shape, uint64_t stream) { return randn_philox(shape, 9, stream); }
    // W + factor * B A, in double.
    static Tensor expected(const Tensor& w, const Tensor& b, const Tensor& a, double factor) {
        Tensor y = w.to(DType::F64).clone();
        int64_t rows = b.dim(0), rank = a.dim(0), cols = a.numel() / rank;
        std::vector<double> up = to_vector<double>(b), down = to_vector<double>(a);
        for (int64_t i = 0; i < rows * cols; ++i) {
            for (int64_t r = 0; r < rank; ++r)
                y.data<double>()[i] += factor * up[static_cast<size_t>(i / cols * rank + r)] *
                                       down[static_cast<size_t>(r * cols + i % cols)];
        }
        return y;
    }
};

}  // namespace

TEST_F(LoraTest, NamesOfEveryProgram) {
    const std::string key = "transformer_blocks.1.attn1.to_k.weight";
    Tensor a = noise({3, 12}, 1), b = noise({12, 3}, 2), alpha = from_vector<float>({6}, {1});
    const std::vector<TensorMap> files = {
        {{"transformer.transformer_blocks.1.attn1.to_k.lora_A.weight", a},
         {"transformer.transformer_blocks.1.attn1.to_k.lora_B.weight", b}},
        {{"base_model.model.transformer_blocks.1.attn1.to_k.lora_A.default.weight", a},
         {"base_model.model.transformer_blocks.1.attn1.to_k.lora_B.default.weight", b}},
        {{"lora_transformer_transformer_blocks_1_attn1_to_k.lora_down.weight", a},
         {"lora_transformer_transformer_blocks_1_attn1_to_k.lora_up.weight", b},
         {"lora_transformer_transformer_blocks_1_attn1_to_k.alpha", alpha}},
    };
    for (size_t i = 0; i < files.size(); ++i) {
        SCOPED_TRACE(i);
        Model model;
        Tensor before = model.weights.at(key),
               other = model.weights.at("transformer_blocks.1.attn1.to_q.weight");
        write_safetensors(path, files[i]);
        LoraReport report = apply_lora({path, 0.5}, model.list, config(), model.weights);
        EXPECT_EQ(report.matched, 1);
        EXPECT_TRUE(report.unmatched.empty());
        double factor = i == 2 ? 0.5 * 6 / 3 : 0.5;
        EXPECT_LE(relative_l2(model.weights.at(key), expected(before, b, a, factor)), 1e-6);
        EXPECT_EQ(max_abs_difference(model.weights.at("transformer_blocks.1.attn1.to_q.weight"), other), 0);
    }
}

// ComfyUI keeps the original model's names: its fused layer reaches the three that diffusers has, and the reverse.
TEST_F(LoraTest, FusedAndSplitLayers) {
    Tensor a = noise({2, 12}, 1), b = noise({36, 2}, 2), b_of_v = noise({12, 2}, 3);
    Model split;
    TensorMap before = split.weights;
    write_safetensors(path, {{"diffusion_model.blocks.0.attn.qkv.lora_A.weight", a},
                             {"diffusion_model.blocks.0.attn.qkv.lora_B.weight", b}});
    apply_lora({path, 1}, split.list, config(), split.weights);
    const char* names[] = {"to_q", "to_k", "to_v"};
    for (int i = 0; i < 3; ++i) {
        std::string key = join("transformer_blocks.0.attn1.", names[i], ".weight");
        EXPECT_LE(
            relative_l2(split.weights.at(key), expected(before.at(key), b.outer_slice(12 * i, 12), a, 1)),
            1e-6);
    }
    Model fused(true);
    Tensor whole = fused.weights.at("blocks.0.attn.qkv.weight").clone();
    write_safetensors(path, {{"transformer.transformer_blocks.0.attn1.to_v.lora_A.weight", a},
                             {"transformer.transformer_blocks.0.attn1.to_v.lora_B.weight", b_of_v}});
    apply_lora({path, 1}, fused.list, config(), fused.weights);
    Tensor now = fused.weights.at("blocks.0.attn.qkv.weight");
    EXPECT_EQ(max_abs_difference(now.outer_slice(0, 24), whole.outer_slice(0, 24)), 0);
    EXPECT_LE(relative_l2(now.outer_slice(24, 12), expected(whole.outer_slice(24, 12), b_of_v, a, 1)), 1e-6);
}

TEST_F(LoraTest, ScaleOfTheMetadata) {
    Model model;
    const std::string key = "transformer_blocks.0.attn2.to_q.weight";
    Tensor before = model.weights.at(key), a = noise({4, 12}, 1), b = noise({12, 4}, 2);
    write_safetensors(path,
                      {{"transformer.transformer_blocks.0.attn2.to_q.lora_A.weight", a},
                       {"transformer.transformer_blocks.0.attn2.to_q.lora_B.weight", b},
                       {"transformer.no_such_layer.lora_A.weight", a}},
                      {{"lora_adapter_metadata", R"({"transformer.r": 4, "transformer.lora_alpha": 2})"}});
    LoraReport report = apply_lora({path, 1}, model.list, config(), model.weights);
    EXPECT_EQ(report.matched, 1);
    ASSERT_EQ(report.unmatched.size(), 1u);
    EXPECT_EQ(report.unmatched[0], "transformer.no_such_layer");
    EXPECT_LE(relative_l2(model.weights.at(key), expected(before, b, a, 0.5)), 1e-6);
}

TEST_F(LoraTest, WhatDoesNotFitIsAnError) {
    Model model;
    write_safetensors(path, {{"unet.down.0.lora_A.weight", noise({2, 5}, 1)},
                             {"unet.down.0.lora_B.weight", noise({5, 2}, 2)}});
    EXPECT_THROW(apply_lora({path, 1}, model.list, config(), model.weights), InputError);
    write_safetensors(path, {{"transformer_blocks.0.attn2.to_q.lora_A.weight", noise({2, 5}, 1)},
                             {"transformer_blocks.0.attn2.to_q.lora_B.weight", noise({12, 2}, 2)}});
    EXPECT_THROW(apply_lora({path, 1}, model.list, config(), model.weights), InputError);
    write_safetensors(path, {{"transformer_blocks.0.attn2.to_q.lora_A.weight", noise({2, 12}, 1)}});
    EXPECT_THROW(apply_lora({path, 1}, model.list, config(), model.weights), InputError);
}

TEST(Lora, Choices) {
    std::vector<LoraChoice> list = parse_loras("a.safetensors:0.8,b.safetensors,C:/c.safetensors");
    ASSERT_EQ(list.size(), 3u);
    EXPECT_EQ(list[0].path, "a.safetensors");
    EXPECT_EQ(list[0].weight, 0.8);
    EXPECT_EQ(list[1].weight, 1);
    EXPECT_EQ(list[2].path, "C:/c.safetensors");
    EXPECT_TRUE(parse_loras("").empty());
}
