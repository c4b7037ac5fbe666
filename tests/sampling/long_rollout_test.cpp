// The sampler alone: the reference's recorded velocities and noise go in, its inputs and latents must come out.
#include "sampling/long_rollout.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "device.h"
#include "folders.h"
#include "io/safetensors.h"
#include "ops/layout.h"

using namespace sana;

TEST(LongRollout, ChunksAndSigmas) {
    EXPECT_EQ(chunk_starts(21, 10), (std::vector<int64_t>{0, 11}));
    EXPECT_EQ(chunk_starts(20, 10), (std::vector<int64_t>{0, 10}));
    EXPECT_EQ(chunk_starts(7, 10), (std::vector<int64_t>{0}));
    EXPECT_EQ(chunk_starts(241, 10).size(), 24u);
    EXPECT_NEAR(table_sigma(1000, 7), 1, 1e-12);
    EXPECT_NEAR(table_sigma(960, 7), 0.9599575, 1e-7);
    EXPECT_NEAR(table_sigma(889, 7), 0.8891532, 1e-7);
    EXPECT_NEAR(table_sigma(727, 7), 0.7274096, 1e-7);
    EXPECT_NEAR(table_sigma(0, 7), 0.0069583, 1e-7);
}

TEST(LongRolloutGolden, AsksForWhatTheReferenceAsked) {
    Checkpoint file = read_safetensors(test::golden_folder() + "/long_stream.safetensors");
    auto at = [&](const char* format, size_t i) {
        char key[32];
        std::snprintf(key, sizeof key, format, i);
        return file.tensors.at(key);
    };
    auto calls = nlohmann::json::parse(file.metadata.at("calls"));
    size_t call = 0, draw = 0;
    LongRollout rollout;
    rollout.steps = nlohmann::json::parse(file.metadata.at("steps")).get<std::vector<double>>();
    rollout.flow_shift = std::stod(file.metadata.at("flow_shift"));
    rollout.velocity = [&](const Tensor& x, double t, int64_t start, int64_t end, bool save) {
        const auto& expected = calls.at(call);
        EXPECT_EQ(t, expected.at("t").get<double>());
        EXPECT_EQ(start, expected.at("start").get<int64_t>());
        EXPECT_EQ(end, expected.at("end").get<int64_t>());
        EXPECT_EQ(save, expected.at("save").get<bool>());
        // The reference rounds the estimate and its mixture with noise to fp32.
        EXPECT_LE(relative_l2(channels_first(x), at("call.%02zu.in", call)), 1e-6) << "call " << call;
        return on_test_device(channels_last(at("call.%02zu.out", call++)));
    };
    rollout.fresh_noise = [&](const Tensor& x) {
        Tensor noise = permute(at("noise.%02zu", draw++), {0, 2, 3, 1});  // [frames,Z,H,W]
        return on_test_device(noise.reshape(x.shape()));
    };
    std::vector<int64_t> starts =
        nlohmann::json::parse(file.metadata.at("chunk_index")).get<std::vector<int64_t>>();
    Tensor noise = channels_last(file.tensors.at("in.latents"));
    EXPECT_EQ(chunk_starts(noise.dim(1), std::stoll(file.metadata.at("base_chunk_frames"))), starts);
    Tensor latents = rollout.run(on_test_device(noise), starts);
    EXPECT_EQ(call, calls.size());
    EXPECT_LE(relative_l2(channels_first(latents), file.tensors.at("out.latents")), 1e-6);
}
