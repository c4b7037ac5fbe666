// Rope tables and the timestep sinusoid against their formulas and known values.
#include "ops/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "ops/embed.h"

namespace sana {
namespace {

TEST(RopeTable, OneDimension) {
    Rope rope = rope_1d(300, 256, 10000, kCpu);
    ASSERT_EQ(rope.cos.shape(), (Shape{300, 128}));
    for (int64_t n = 0; n < 300; ++n) {
        for (int64_t j = 0; j < 128; ++j) {
            double angle = static_cast<double>(n) * std::pow(10000.0, -static_cast<double>(j) / 128);
            ASSERT_NEAR(rope.cos.data<float>()[n * 128 + j], std::cos(angle), 6e-8) << n << ", " << j;
            ASSERT_NEAR(rope.sin.data<float>()[n * 128 + j], std::sin(angle), 6e-8) << n << ", " << j;
        }
    }
}

TEST(RopeTable, FrequenciesRoundedToBf16) {
    Rope rope = rope_1d(300, 256, 10000, kCpu, true);
    for (int64_t j : {0, 1, 17, 127}) {
        double omega = bf16(static_cast<float>(std::pow(10000.0, -static_cast<double>(j) / 128)));
        EXPECT_NEAR(rope.sin.data<float>()[299 * 128 + j], std::sin(299 * omega), 6e-8) << j;
    }
}

// A head of 112 channels has 40 of them for t and 36 each for h and w.
TEST(RopeTable, ThreeDimensions) {
    for (int64_t width : {112, 6, 8, 16, 32, 128}) {
        Grid grid{3, 4, 5};
        int64_t start = 7, side = 2 * (width / 6), time = width - 2 * side, pairs = width / 2;
        Rope rope = rope_3d(grid, width, 10000, start, kCpu);
        ASSERT_EQ(rope.sin.shape(), (Shape{60, pairs}));
        int64_t n = 0;
        for (int64_t t = 0; t < 3; ++t) {
            for (int64_t h = 0; h < 4; ++h) {
                for (int64_t w = 0; w < 5; ++w, ++n) {
                    std::vector<double> angles;
                    auto axis = [&](int64_t position, int64_t m) {
                        for (int64_t j = 0; j < m / 2; ++j) {
                            angles.push_back(
                                static_cast<double>(position) /
                                std::pow(10000.0, 2 * static_cast<double>(j) / static_cast<double>(m)));
                        }
                    };
                    axis(start + t, time);
                    axis(h, side);
                    axis(w, side);
                    ASSERT_EQ(static_cast<int64_t>(angles.size()), pairs);
                    for (int64_t j = 0; j < pairs; ++j) {
                        double angle = angles[static_cast<size_t>(j)];
                        ASSERT_NEAR(rope.cos.data<float>()[n * pairs + j], std::cos(angle), 6e-8);
                        ASSERT_NEAR(rope.sin.data<float>()[n * pairs + j], std::sin(angle), 6e-8);
                    }
                }
            }
        }
    }
}

TEST(TimestepEmbedding, KnownValues) {
    auto sinusoid = [](DType dtype) {
        Tensor t = from_vector(std::vector<float>{0, 999}, {2}).to(dtype);
        return to_vector<double>(timestep_embedding(t, 256));
    };
    std::vector<double> exact = sinusoid(DType::F64), single = sinusoid(DType::F32);
    ASSERT_EQ(exact.size(), 512u);
    for (size_t j = 0; j < 128; ++j) {
        EXPECT_EQ(single[j], 1);
        EXPECT_EQ(single[128 + j], 0);
    }
    // The formula at t = 999.
    const double cosines[] = {0.999650, 0.963782, -0.398992, 0.704820};
    const double sines[] = {-0.026461, -0.266690, -0.916955, 0.709386};
    for (size_t j = 0; j < 4; ++j) {
        EXPECT_NEAR(exact[256 + j], cosines[j], 1e-6) << j;
        EXPECT_NEAR(exact[384 + j], sines[j], 1e-6) << j;
    }
    EXPECT_NEAR(exact[256 + 127], 0.994243, 1e-6);
    EXPECT_NEAR(exact[384 + 127], 0.107147, 1e-6);
    // PyTorch in fp32 at t = 999: an angle of 930 is rounded to 6e-5, which the result shows.
    const double single_cosines[] = {0.99964982, 0.96378529, -0.39902055, 0.70484155};
    const double single_sines[] = {-0.02646075, -0.26667938, -0.91694200, 0.70936477};
    for (size_t j = 0; j < 4; ++j) {
        EXPECT_NEAR(single[256 + j], single_cosines[j], 1e-7) << j;
        EXPECT_NEAR(single[384 + j], single_sines[j], 1e-7) << j;
    }
}

}  // namespace
}  // namespace sana
