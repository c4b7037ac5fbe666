// The LTX-2 autoencoder beyond whole clips: streams, chunks of the encoder, tiles, the original names, configs.
#include "models/ltx2_vae/ltx2_vae.h"

#include <set>

#include "../golden.h"
#include "core/random.h"

using namespace sana;
using namespace sana::test;

namespace {

Ltx2VaeConfig small_config(bool causal) {
    Ltx2VaeConfig config;
    config.latent_channels = 8;
    config.encoder_widths = {8, 16, 16, 32};
    config.decoder_widths = {8, 16, 32};
    config.encoder_layers = {1, 1, 1, 1, 1};
    config.decoder_layers = {1, 1, 1, 1};
    config.decoder_causal = causal;
    return config;
}

Ltx2VaeConfig parse(const std::string& json) {
    return Ltx2VaeConfig::from_json(JsonConfig(json, "config.json"));
}

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

TEST(Ltx2VaeStream, PiecesOfAnySizeEqualTheWhole) {
    Ltx2Vae vae(small_config(true), VaeParts::decoder);
    for (DType dtype : exact_dtypes()) {
        draw(parameters(vae), 1, dtype, test_device());
        Tensor latents = on_test_device(randn_philox({2, 5, 2, 3, 8}, 2).to(dtype));
        // The decoder over all frames at once defines the result.
        CausalCache fresh;
        Tensor whole = vae.decoder->forward(latents, &fresh);
        ASSERT_EQ(whole.dim(1), 33);
        for (const std::vector<int64_t>& sizes :
             std::vector<std::vector<int64_t>>{{1, 4}, {2, 3}, {1, 1, 1, 1, 1}, {3, 1, 1}}) {
            VaeDecodeStream stream;
            std::vector<Tensor> parts;
            int64_t start = 0;
            for (int64_t n : sizes) {
                parts.push_back(vae.decode_chunk(stream, slice(latents, 1, start, n)));
                EXPECT_EQ(parts.back().dim(1), 8 * n - (start == 0 ? 7 : 0));
                start += n;
            }
            EXPECT_LE(relative_l2(concat(parts, 1), whole), same_bound(dtype));
        }
    }
}

TEST(Ltx2VaeStream, ADecoderThatIsNotCausalHasNoStream) {
    Ltx2Vae vae(small_config(false), VaeParts::decoder);
    draw(parameters(vae), 1, DType::F32);
    VaeDecodeStream stream;
    std::string message = error_of([&] { vae.decode_chunk(stream, zeros({1, 1, 2, 2, 8}, DType::F32)); });
    EXPECT_NE(message.find("decoder_causal"), std::string::npos) << message;
}

TEST(Ltx2VaeStream, EncoderChunksAreExact) {
    Ltx2Vae vae(small_config(true), VaeParts::encoder);
    for (DType dtype : exact_dtypes()) {
        draw(parameters(vae), 1, dtype, test_device());
        Tensor video = on_test_device(randn_philox({2, 17, 64, 32, 3}, 2).to(dtype));
        Tensor mean = vae.encode(video).mean;
        CausalCache fresh;
        Tensor whole = vae.encoder->forward(video, &fresh);
        EXPECT_LE(relative_l2(whole.cols_slice(0, 8).contiguous(), mean), same_bound(dtype));
    }
}

TEST(Ltx2VaeTiling, AgainstTheReference) {
    for (const std::string& path : own_golden_files("vae_tiling_ltx2")) {
        Golden golden(path);
        Ltx2Vae vae(Ltx2VaeConfig::from_json(golden.config()), VaeParts::both);
        for (DType dtype : exact_dtypes()) {
            load(parameters(vae), ltx2_vae_names(VaeParts::both), golden.under("w."), dtype, path,
                 test_device());
            vae.tiling = {std::stoll(golden.file.metadata.at("tile")),
                          std::stoll(golden.file.metadata.at("stride"))};
            VaeMoments moments = vae.encode(on_test_device(channels_last(golden.at("in.video")).to(dtype)));
            expect_close(channels_first(moments.mean), golden.at("out.mean"), 2e-5, "out.mean");
            expect_close(channels_first(moments.logvar), golden.at("out.logvar"), 2e-5, "out.logvar");
            Tensor video = vae.decode(on_test_device(channels_last(golden.at("in.latents")).to(dtype)));
            expect_close(channels_first(video), golden.at("out.video"), 2e-5, "out.video");
        }
    }
}

// A last tile of one cell could not be padded by reflection: it goes to the tile before.
TEST(Ltx2VaeTiling, NoTileIsTooSmallToReflect) {
    Ltx2Vae vae(small_config(false), VaeParts::decoder);
    draw(parameters(vae), 1, DType::F32, test_device());
    for (int64_t stride : {64, 96}) {
        vae.tiling = {96, stride};
        for (int64_t cells : {4, 5, 6, 7}) {
            Tensor video = vae.decode(on_test_device(randn_philox({1, 2, 2, cells, 8}, 2)));
            EXPECT_EQ(video.shape(), (Shape{1, 9, 64, 32 * cells, 3})) << cells << " cells";
        }
    }
}

TEST(Ltx2VaeNames, Official) {
    Ltx2VaeConfig config = Ltx2VaeConfig::released();
    TensorMap combined{{"vae.per_channel_statistics.mean-of-means", zeros({128}, DType::F32)}};
    ASSERT_TRUE(ltx2_vae_looks_official(combined));
    CheckpointNames names = ltx2_vae_official_names(config, VaeParts::both, combined);
    for (auto [ours, theirs] : std::vector<std::pair<std::string, std::string>>{
             {"latents_mean", "vae.per_channel_statistics.mean-of-means"},
             {"latents_std", "vae.per_channel_statistics.std-of-means"},
             {"encoder.conv_in.conv.weight", "vae.encoder.conv_in.conv.weight"},
             {"encoder.down_blocks.0.resnets.3.conv1.conv.weight",
              "vae.encoder.down_blocks.0.res_blocks.3.conv1.conv.weight"},
             {"encoder.down_blocks.0.downsamplers.0.conv.conv.bias",
              "vae.encoder.down_blocks.1.conv.conv.bias"},
             {"encoder.down_blocks.3.resnets.1.conv2.conv.bias",
              "vae.encoder.down_blocks.6.res_blocks.1.conv2.conv.bias"},
             {"encoder.mid_block.resnets.1.conv2.conv.bias",
              "vae.encoder.down_blocks.8.res_blocks.1.conv2.conv.bias"},
             {"decoder.mid_block.resnets.4.conv1.conv.weight",
              "vae.decoder.up_blocks.0.res_blocks.4.conv1.conv.weight"},
             {"decoder.up_blocks.0.upsamplers.0.conv.conv.weight",
              "vae.decoder.up_blocks.1.conv.conv.weight"},
             {"decoder.up_blocks.2.resnets.4.conv2.conv.bias",
              "vae.decoder.up_blocks.6.res_blocks.4.conv2.conv.bias"}}) {
        EXPECT_EQ(checkpoint_keys(names, ours), std::vector<std::string>{theirs});
    }
    Ltx2Vae vae(config, VaeParts::both);
    std::set<std::string> keys;
    for (const auto& [key, shape] : checkpoint_layout(parameters(vae), names)) {
        EXPECT_TRUE(keys.insert(key).second) << key;
    }
    EXPECT_EQ(keys.size(), 184u);
}

// A file of the whole system: the other models' tensors and further statistics are passed over.
TEST(Ltx2VaeNames, EachPartLoadsFromACombinedFile) {
    Ltx2VaeConfig config = small_config(true);
    Ltx2Vae whole(config, VaeParts::both);
    draw(parameters(whole), 3, DType::F32);
    TensorMap marker{{"vae.per_channel_statistics.mean-of-means", zeros({8}, DType::F32)}};
    TensorMap file = save(parameters(whole), ltx2_vae_official_names(config, VaeParts::both, marker));
    file["model.diffusion_model.proj_out.weight"] = zeros({2}, DType::F32);
    file["vae.per_channel_statistics.mean-of-stds"] = zeros({8}, DType::F32);
    Tensor latents = randn_philox({1, 2, 2, 2, 8}, 4), expected = whole.decode(latents);
    for (VaeParts parts : {VaeParts::both, VaeParts::decoder, VaeParts::encoder}) {
        Ltx2Vae vae(config, parts);
        load(parameters(vae), ltx2_vae_official_names(config, parts, file), file, std::nullopt, "weights");
        if (parts == VaeParts::encoder) continue;
        EXPECT_EQ(max_abs_difference(vae.decode(latents), expected), 0.0);
    }
    // Alone, without the prefix; what does not belong is named.
    TensorMap alone;
    for (const auto& [key, tensor] : file) {
        if (key.starts_with("vae.")) alone[key.substr(4)] = tensor;
    }
    Ltx2Vae vae(config, VaeParts::both);
    CheckpointNames names = ltx2_vae_official_names(config, VaeParts::both, alone);
    load(parameters(vae), names, alone, std::nullopt, "weights");
    alone["decoder.last_time_embedder.weight"] = zeros({2}, DType::F32);
    std::string message = error_of([&] { load(parameters(vae), names, alone, std::nullopt, "weights"); });
    EXPECT_NE(message.find("decoder.last_time_embedder.weight"), std::string::npos) << message;
}

TEST(Ltx2VaeStatistics, StayFp32AndNormalise) {
    Ltx2Vae vae(small_config(true), VaeParts::decoder);
    Device device = test_device();
    draw(parameters(vae), 1, DType::BF16, device);
    EXPECT_EQ(vae.latents_mean.value.dtype(), DType::F32);
    vae.latents_mean.value = full({8}, 0.25, DType::F32, device);
    vae.latents_std.value = full({8}, 4, DType::F32, device);
    Tensor z = full({1, 1, 2, 2, 8}, 2.25, DType::F32, device);
    EXPECT_EQ(max_abs_difference(vae.normalise(z), full({1, 1, 2, 2, 8}, 0.5, DType::F32)), 0.0);
    EXPECT_EQ(max_abs_difference(vae.denormalise(vae.normalise(z)), z), 0.0);
}

TEST(Ltx2VaeConfig, DefaultsAndRoundTrip) {
    Ltx2VaeConfig a = parse("{}");
    EXPECT_EQ(a.to_json(), Ltx2VaeConfig{}.to_json());
    EXPECT_EQ(a.spatial_factor(), 32);
    EXPECT_EQ(a.temporal_factor(), 8);
    EXPECT_EQ(parse(small_config(false).to_json()).to_json(), small_config(false).to_json());
}

TEST(Ltx2VaeConfig, OtherVariantsAreRefusedByName) {
    for (auto [json, word] : std::vector<std::pair<std::string, std::string>>{
             {R"({"timestep_conditioning": true})", "timestep_conditioning"},
             {R"({"decoder_inject_noise": [false, false, true, false]})", "decoder_inject_noise"},
             {R"({"patch_size_t": 2})", "patch_size_t"},
             {R"({"spatio_temporal_scaling": [true, true, true, false]})", "spatio_temporal_scaling"},
             {R"({"down_block_types": ["LTXVideoDownBlock3D"]})", "down_block_types"},
             {R"({"downsample_type": ["conv", "temporal", "spatiotemporal", "spatiotemporal"]})",
              "downsample_type"},
             {R"({"upsample_type": ["spatial", "spatiotemporal", "spatiotemporal"]})", "upsample_type"},
             {R"({"upsample_factor": [2, 2]})", "upsample_factor"},
             {R"({"layers_per_block": [4, 6]})", "layers_per_block"},
             {R"({"decoder_spatial_padding_mode": "circular"})", "decoder_spatial_padding_mode"},
             {R"({"block_out_channels": [250, 512, 1024, 2048]})", "block_out_channels"},
             {R"({"decoder_block_out_channels": [256, 500, 1024]})", "decoder_block_out_channels"}}) {
        std::string message = error_of([&] { parse(json); });
        EXPECT_NE(message.find("config.json: " + word), std::string::npos) << json << " gives: " << message;
    }
}

// Kinds of resampling in another order, without shortcuts, other factors.
TEST(Ltx2VaeConfig, UnusualSizesRun) {
    for (bool residual : {true, false}) {
        for (bool causal : {true, false}) {
            Ltx2VaeConfig config = small_config(causal);
            config.encoder_widths = {8, 16};
            config.encoder_layers = {1, 2, 1};
            config.downsample = {"temporal", "spatial"};
            config.decoder_widths = {8, 16};
            config.decoder_layers = {1, 1, 2};
            config.upsample = {"spatial", "temporal"};
            config.upsample_factor = {1, 2};
            config.upsample_residual = {residual, !residual};
            config.patch = 2;
            config.encoder_reflect = true;
            config.decoder_widths = {8, 16};
            config = parse(config.to_json());
            Ltx2Vae vae(config, VaeParts::both);
            draw(parameters(vae), 1, DType::F32, test_device());
            Tensor video = on_test_device(randn_philox({2, 5, 8, 12, 3}, 2)), mean = vae.encode(video).mean;
            EXPECT_EQ(mean.shape(), (Shape{2, 3, 2, 3, 8}));
            EXPECT_EQ(vae.decode(mean).shape(), video.shape());
        }
    }
}

TEST(Ltx2VaeErrors, WrongSizes) {
    Ltx2Vae vae(small_config(false), VaeParts::both);
    draw(parameters(vae), 1, DType::F32);
    for (const Shape& shape : {Shape{1, 5, 64, 64, 3}, Shape{1, 9, 64, 48, 3}, Shape{1, 9, 64, 64, 1}}) {
        std::string message = error_of([&] { vae.encode(zeros(shape, DType::F32)); });
        EXPECT_NE(message.find("1 + 8k frames"), std::string::npos) << message;
    }
    EXPECT_THROW(vae.decode(zeros({1, 1, 2, 2, 7}, DType::F32)), InputError);
    // Reflection needs two rows and columns.
    std::string message = error_of([&] { vae.decode(zeros({1, 1, 1, 2, 8}, DType::F32)); });
    EXPECT_NE(message.find("64 pixels"), std::string::npos) << message;
    Ltx2VaeConfig config = small_config(false);
    config.encoder_reflect = true;
    Ltx2Vae reflecting(config, VaeParts::encoder);
    draw(parameters(reflecting), 1, DType::F32);
    message = error_of([&] { reflecting.encode(zeros({1, 1, 32, 64, 3}, DType::F32)); });
    EXPECT_NE(message.find("64 pixels"), std::string::npos) << message;
}
