// E4M3 codes one by one, and what the products of codes refuse. Values over whole tensors: bench/cases/fp8_cases.cpp.
#include "ops/linear_attention_fp8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/random.h"
#include "device.h"

namespace sana {
namespace {

// A row that begins with 448 has the scale 1: what follows is encoded as it is.
std::vector<float> encoded_and_back(std::vector<float> values) {
    values.insert(values.begin(), 448.0f);
    Fp8 codes = quantise(from_vector(values, {1, static_cast<int64_t>(values.size())}).to(test_device()));
    EXPECT_EQ(to_vector<float>(codes.scale.to(kCpu)), std::vector<float>{1.0f});
    std::vector<float> back = to_vector<float>(dequantise(codes, DType::F32).to(kCpu));
    back.erase(back.begin());
    return back;
}

TEST(Fp8, EveryFiniteCodeComesBack) {
    std::vector<float> values;
    for (int exponent = 0; exponent < 16; ++exponent) {
        for (int mantissa = 0; mantissa < 8; ++mantissa) {
            if (exponent == 15 && mantissa == 7) continue;  // NaN
            float v = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                    : std::ldexp(8.0f + static_cast<float>(mantissa), exponent - 10);
            values.push_back(v);
            values.push_back(-v);
        }
    }
    EXPECT_EQ(values[values.size() - 2], 448.0f);
    EXPECT_EQ(encoded_and_back(values), values);
}

TEST(Fp8, RoundsToTheNearestTiesToEven) {
    float up = std::nextafter(1.0f, 2.0f), down = std::nextafter(1.0f, 0.0f);
    // In eighths from 1 to 2; subnormal codes are multiples of 2^-9.
    EXPECT_EQ(encoded_and_back({1.0625f, 1.0625f * up, 1.1875f, 1.1875f * down, -1.0625f}),
              (std::vector<float>{1.0f, 1.125f, 1.25f, 1.125f, -1.0f}));
    EXPECT_EQ(
        encoded_and_back({0x1p-10f, 0x1p-10f * up, 0x1.8p-9f, 0x1p-11f, 0x1.fp-7f, 1.9375f, 440.0f, 431.0f}),
        (std::vector<float>{0.0f, 0x1p-9f, 0x1p-8f, 0.0f, 0x1p-6f, 2.0f, 448.0f, 416.0f}));
}

TEST(Fp8, ScalesArePowersOfTwoThatJustFit) {
    Tensor x = from_vector(std::vector<float>{448, 1, 449, 1, 0, 0, 0.875f, 0, 0.876f, 0, 1e-38f, 0}, {6, 2});
    Fp8 codes = quantise(x.to(test_device()));
    EXPECT_EQ(to_vector<float>(codes.scale.to(kCpu)),
              (std::vector<float>{1, 2, 1, 0x1p-9f, 0x1p-8f, 0x1p-120f}));
}

TEST(Fp8, WhatIsNotFiniteStaysVisible) {
    float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
    for (float bad : {inf, -inf, nan}) {
        Tensor x = from_vector(std::vector<float>{1, bad, 2, 1, 3, 2}, {2, 3});
        std::vector<float> y =
            to_vector<float>(dequantise(quantise(x.to(test_device())), DType::F32).to(kCpu));
        for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(std::isnan(y[i]));
        EXPECT_EQ((std::vector<float>{y[3], y[4], y[5]}), (std::vector<float>{1, 3, 2}));
    }
}

TEST(Fp8, LinearAttentionGivesTheCodesOfItsResult) {
    Device device = test_device();
    for (auto [heads, tokens] : {std::pair{20, 330}, {7, 64}, {3, 65}, {1, 200}}) {
        int64_t width = 112, channels = heads * width;
        LinearAttentionOptions options;
        options.heads = heads;
        options.q_norm = full({channels}, 1.25, DType::BF16, device);
        options.k_norm = full({channels}, 0.75, DType::BF16, device);
        options.rope = rope_3d({1, 1, tokens}, width, 10000, 3, device);
        Tensor all = randn_philox({2, tokens, 3 * channels}, 5).to(DType::BF16).to(device);
        auto part = [&](int64_t i) { return all.cols_slice(i * channels, channels); };
        Tensor by_codes =
            dequantise(linear_attention_fp8(part(0), part(1), part(2), options), DType::F32).to(kCpu);
        Tensor by_values =
            dequantise(quantise(linear_attention(part(0), part(1), part(2), options)), DType::F32).to(kCpu);
        // Row statistics may be added in another order, which moves few results over the middle of two codes.
        EXPECT_LT(relative_l2(by_codes, by_values), device == kCpu ? 1e-9 : 3e-3) << heads << " heads";
    }
}

TEST(Fp8, ErrorsNameWhatDoesNotFit) {
    Device device = test_device();
    Fp8 x = quantise(zeros({2, 3, 16}, DType::BF16, device)),
        w = quantise(zeros({8, 32}, DType::BF16, device));
    auto message = [](auto f) {
        try {
            f();
        } catch (const Error& error) {
            return std::string(error.what());
        }
        return std::string("nothing was thrown");
    };
    EXPECT_NE(message([&] { linear(x, w, {}, {}, DType::BF16); }).find("weight[O,C]"), std::string::npos);
    Fp8 fits = quantise(zeros({8, 16}, DType::BF16, device));
    EXPECT_NE(
        message([&] { linear(x, fits, zeros({8}, DType::F32, device), {}, DType::BF16); }).find(".to(bf16)"),
        std::string::npos);
    Fp8 none{x.codes, {}};
    EXPECT_NE(message([&] { linear(none, fits, {}, {}, DType::BF16); }).find("scale a row"),
              std::string::npos);
    EXPECT_NE(message([&] {
                  temporal_conv(zeros({1, 2, 3, 16}, DType::BF16, device), fits, {}, {});
              }).find("temporal_conv"),
              std::string::npos);
    EXPECT_NE(message([&] {
                  quantise(zeros({2, 2}, DType::I32, device));
              }).find("floating"),
              std::string::npos);
}

}  // namespace
}  // namespace sana
