// The Wan autoencoder beyond whole clips: streams, chunks of the encoder, tiles, the original names, configs.
#include "models/wan_vae/wan_vae.h"

#include <set>

#include "../golden.h"
#include "core/random.h"

using namespace sana;
using namespace sana::test;

namespace {

WanVaeConfig small_config() {
    WanVaeConfig config = WanVaeConfig::released();
    config.base = config.decoder_base = 4;
    config.residual_blocks = 1;
    return config;
}

WanVaeConfig parse(const std::string& json) {
    return WanVaeConfig::from_json(JsonConfig(json, "config.json"));
}

// The message of the InputError that body throws.
template <class F>
std::string error_of(F body) {
    try {
        body();
    } catch (const InputError& error) {
        return error.what();
    }
    return "no error";
}

}  // namespace

TEST(WanVaeStream, PiecesOfAnySizeEqualTheWhole) {
    WanVae vae(small_config(), VaeParts::decoder);
    for (DType dtype : exact_dtypes()) {
        draw(parameters(vae), 1, dtype, test_device());
        Tensor latents = on_test_device(randn_philox({2, 6, 3, 2, 16}, 2).to(dtype)),
               whole = vae.decode(latents);
        ASSERT_EQ(whole.dim(1), 21);
        for (const std::vector<int64_t>& sizes :
             std::vector<std::vector<int64_t>>{{6}, {1, 5}, {2, 4}, {1, 1, 1, 1, 1, 1}, {3, 1, 2}}) {
            VaeDecodeStream stream;
            std::vector<Tensor> parts;
            int64_t start = 0;
            for (int64_t n : sizes) {
                parts.push_back(vae.decode_chunk(stream, slice(latents, 1, start, n)));
                EXPECT_EQ(parts.back().dim(1), 4 * n - (start == 0 ? 3 : 0));
                start += n;
            }
            EXPECT_LE(relative_l2(concat(parts, 1), whole), same_bound(dtype));
        }
    }
}

TEST(WanVaeStream, EncoderChunksAreExact) {
    WanVae vae(small_config(), VaeParts::encoder);
    for (DType dtype : exact_dtypes()) {
        draw(parameters(vae), 1, dtype, test_device());
        Tensor video = on_test_device(randn_philox({1, 17, 16, 24, 3}, 2).to(dtype));
        Tensor mean = vae.encode(video).mean;
        for (int64_t chunk : {1, 2, 3}) {
            std::vector<Tensor> parts;
            run_causal(
                video, 4, chunk,
                [&](CausalCache& cache, const Tensor& x) { return vae.encoder->forward(x, cache); },
                [&](const Tensor& moments, int64_t) { parts.push_back(moments); });
            Tensor moments = vae.quant_conv->forward(concat(parts, 1));
            EXPECT_LE(relative_l2(moments.cols_slice(0, 16).contiguous(), mean), same_bound(dtype))
                << "chunk " << chunk;
        }
    }
}

// What a stream keeps does not grow with the clip: the caches hold two frames each.
TEST(WanVaeStream, MemoryDoesNotGrowWithTheClip) {
    WanVae vae(small_config(), VaeParts::decoder);
    Device device = test_device();
    draw(parameters(vae), 1, DType::F32, device);
    auto peak = [&](int64_t frames) {
        Tensor latents = zeros({1, frames, 8, 8, 16}, DType::F32, device);
        release_cached(device);
        int64_t before = memory_statistics(device).active;
        reset_peak(device);
        vae.decode(latents, {.sink = [](const Tensor&) {}, .chunk = 1});
        return memory_statistics(device).peak - before;
    };
    peak(3);
    int64_t few = peak(4);
    // One decoded latent frame more would be 6 % of it; blocks of the cache may be a little larger than asked for.
    EXPECT_LE(static_cast<double>(peak(20)), 1.05 * static_cast<double>(few));
}

TEST(WanVaeTiling, AgainstTheReference) {
    for (const std::string& path : own_golden_files("vae_tiling_wan")) {
        Golden golden(path);
        WanVae vae(WanVaeConfig::from_json(golden.config()), VaeParts::both);
        for (DType dtype : exact_dtypes()) {
            load(parameters(vae), wan_vae_names(VaeParts::both), golden.under("w."), dtype, path,
                 test_device());
            vae.tiling = {std::stoll(golden.file.metadata.at("tile")),
                          std::stoll(golden.file.metadata.at("stride"))};
            VaeMoments moments = vae.encode(on_test_device(channels_last(golden.at("in.video")).to(dtype)));
            expect_close(channels_first(moments.mean), golden.at("out.mean"), 2e-5, "out.mean");
            expect_close(channels_first(moments.logvar), golden.at("out.logvar"), 2e-5, "out.logvar");
            Tensor latents = on_test_device(channels_last(golden.at("in.latents")).to(dtype));
            std::vector<int64_t> done;
            Tensor video = vae.decode(latents, {.progress = [&](int64_t n, int64_t total) {
                                          done.push_back(n);
                                          EXPECT_EQ(total, 6);
                                      }});
            expect_close(channels_first(video), golden.at("out.video"), 2e-5, "out.video");
            EXPECT_EQ(done.size(), 6u);
        }
    }
}

TEST(WanVaeTiling, RefusesTilesBelowACell) {
    WanVae vae(small_config(), VaeParts::decoder);
    draw(parameters(vae), 1, DType::F32);
    vae.tiling = {7, 7};
    EXPECT_THROW(vae.decode(zeros({1, 1, 2, 2, 16}, DType::F32)), InputError);
    vae.tiling = {16, 24};
    EXPECT_THROW(vae.decode(zeros({1, 1, 4, 4, 16}, DType::F32)), InputError);
}

// The table of names of the released model, key by key where the numbering changes.
TEST(WanVaeNames, Official) {
    WanVaeConfig config = WanVaeConfig::released();
    CheckpointNames names = wan_vae_official_names(config, VaeParts::both);
    for (auto [ours, theirs] : std::vector<std::pair<std::string, std::string>>{
             {"quant_conv.weight", "conv1.weight"},
             {"post_quant_conv.bias", "conv2.bias"},
             {"encoder.conv_in.weight", "encoder.conv1.weight"},
             {"encoder.down_blocks.3.conv_shortcut.bias", "encoder.downsamples.3.shortcut.bias"},
             {"encoder.down_blocks.10.norm2.gamma", "encoder.downsamples.10.residual.3.gamma"},
             {"encoder.down_blocks.5.time_conv.weight", "encoder.downsamples.5.time_conv.weight"},
             {"encoder.down_blocks.2.resample.1.weight", "encoder.downsamples.2.resample.1.weight"},
             {"encoder.mid_block.resnets.1.conv2.weight", "encoder.middle.2.residual.6.weight"},
             {"encoder.norm_out.gamma", "encoder.head.0.gamma"},
             {"decoder.mid_block.resnets.0.norm1.gamma", "decoder.middle.0.residual.0.gamma"},
             {"decoder.mid_block.attentions.0.to_qkv.weight", "decoder.middle.1.to_qkv.weight"},
             {"decoder.up_blocks.0.resnets.2.conv1.weight", "decoder.upsamples.2.residual.2.weight"},
             {"decoder.up_blocks.0.upsamplers.0.time_conv.bias", "decoder.upsamples.3.time_conv.bias"},
             {"decoder.up_blocks.1.resnets.0.conv_shortcut.weight", "decoder.upsamples.4.shortcut.weight"},
             {"decoder.up_blocks.1.upsamplers.0.resample.1.bias", "decoder.upsamples.7.resample.1.bias"},
             {"decoder.up_blocks.2.upsamplers.0.resample.1.bias", "decoder.upsamples.11.resample.1.bias"},
             {"decoder.up_blocks.3.resnets.2.conv2.bias", "decoder.upsamples.14.residual.6.bias"},
             {"decoder.conv_out.weight", "decoder.head.2.weight"}}) {
        EXPECT_EQ(checkpoint_keys(names, ours), std::vector<std::string>{theirs});
    }
    // No two parameters share a key.
    WanVae vae(config, VaeParts::both);
    auto layout = checkpoint_layout(parameters(vae), names);
    std::set<std::string> keys;
    for (const auto& [key, shape] : layout) EXPECT_TRUE(keys.insert(key).second) << key;
    EXPECT_EQ(keys.size(), 194u);
}

TEST(WanVaeNames, EachPartLoadsFromBothFormats) {
    WanVaeConfig config = small_config();
    WanVae whole(config, VaeParts::both);
    draw(parameters(whole), 3, DType::F32);
    TensorMap ours = save(parameters(whole), wan_vae_names(VaeParts::both));
    TensorMap theirs = save(parameters(whole), wan_vae_official_names(config, VaeParts::both));
    EXPECT_FALSE(wan_vae_looks_official(ours));
    EXPECT_TRUE(wan_vae_looks_official(theirs));
    Tensor latents = randn_philox({1, 2, 2, 2, 16}, 4), expected = whole.decode(latents);
    for (bool official : {false, true}) {
        for (VaeParts parts : {VaeParts::both, VaeParts::decoder, VaeParts::encoder}) {
            WanVae vae(config, parts);
            load(parameters(vae), official ? wan_vae_official_names(config, parts) : wan_vae_names(parts),
                 official ? theirs : ours, std::nullopt, "weights");
            if (parts == VaeParts::encoder) continue;
            EXPECT_EQ(max_abs_difference(vae.decode(latents), expected), 0.0);
        }
    }
}

TEST(WanVaeConfig, DefaultsAndRoundTrip) {
    WanVaeConfig a = parse("{}"), b = WanVaeConfig::released();
    EXPECT_EQ(a.to_json(), b.to_json());
    EXPECT_EQ(a.spatial_factor(), 8);
    EXPECT_EQ(a.temporal_factor(), 4);
    WanVaeConfig c = parse(R"({"base_dim": 8, "decoder_base_dim": 12, "dim_mult": [1, 3], "z_dim": 1,
        "temperal_downsample": [true], "num_res_blocks": 3, "latents_mean": [0.5], "latents_std": [2]})");
    EXPECT_EQ(parse(c.to_json()).to_json(), c.to_json());
    EXPECT_EQ(c.spatial_factor(), 2);
    EXPECT_EQ(c.temporal_factor(), 2);
}

TEST(WanVaeConfig, OtherVariantsAreRefusedByName) {
    for (auto [json, word] : std::vector<std::pair<std::string, std::string>>{
             {R"({"is_residual": true})", "is_residual"},
             {R"({"patch_size": 2})", "patch_size"},
             {R"({"attn_scales": [0.5]})", "attn_scales"},
             {R"({"in_channels": 12})", "in_channels"},
             {R"({"temperal_downsample": [true]})", "temperal_downsample"},
             {R"({"latents_mean": [1, 2]})", "latents_mean"},
             {R"({"latents_std": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0]})", "latents_std"},
             {R"({"base_dim": 0})", "base_dim"},
             {R"({"base_dim": 1, "dim_mult": [1, 1, 1, 1]})", "dim_mult"},
             {R"({"dim_mult": "1"})", "dim_mult"}}) {
        std::string message = error_of([&] { parse(json); });
        EXPECT_NE(message.find("config.json: " + word), std::string::npos) << json << " gives: " << message;
    }
}

// Every size that the config allows runs, with temporal factors 1, 2 and 4 and odd widths.
TEST(WanVaeConfig, UnusualSizesRun) {
    for (
        const char* json :
        {R"({"base_dim": 3, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1})",
         R"({"base_dim": 5, "dim_mult": [2], "temperal_downsample": [], "num_res_blocks": 1})",
         R"({"base_dim": 4, "dim_mult": [1, 2], "temperal_downsample": [false], "num_res_blocks": 1})",
         R"({"base_dim": 4, "decoder_base_dim": 6, "dim_mult": [1, 2, 1], "temperal_downsample": [true, true]})"}) {
        WanVae vae(parse(json), VaeParts::both);
        draw(parameters(vae), 1, DType::F32, test_device());
        int64_t s = vae.config().spatial_factor(), t = vae.config().temporal_factor();
        Tensor video = on_test_device(randn_philox({1, 1 + 2 * t, 2 * s, 3 * s, 3}, 2));
        Tensor mean = vae.encode(video).mean;
        EXPECT_EQ(mean.shape(), (Shape{1, 3, 2, 3, 16})) << json;
        EXPECT_EQ(vae.decode(mean).shape(), video.shape()) << json;
    }
}

TEST(WanVaeErrors, WrongSizes) {
    WanVae vae(small_config(), VaeParts::both);
    draw(parameters(vae), 1, DType::F32);
    for (const Shape& shape : {Shape{1, 4, 16, 16, 3}, Shape{1, 5, 16, 12, 3}, Shape{1, 5, 16, 16, 4},
                               Shape{5, 16, 16, 3}, Shape{1, 0, 16, 16, 3}}) {
        std::string message = error_of([&] { vae.encode(zeros(shape, DType::F32)); });
        EXPECT_NE(message.find("1 + 4k frames"), std::string::npos) << message;
    }
    VaeDecodeStream stream;
    for (const Shape& shape : {Shape{1, 1, 2, 2, 15}, Shape{1, 2, 2, 16}, Shape{1, 0, 2, 2, 16}}) {
        EXPECT_THROW(vae.decode(zeros(shape, DType::F32)), InputError);
        EXPECT_THROW(vae.decode_chunk(stream, zeros(shape, DType::F32)), InputError);
    }
}
