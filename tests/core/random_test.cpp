// Expected values from torch 2.15: torch.randn(n, generator=torch.Generator("cpu").manual_seed(seed)).
#include "core/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "core/parallel.h"
#include "device.h"

using namespace sana;

TEST(Random, PhiloxKnownAnswers) {
    // Random123 known answer tests, philox4x32-10.
    auto zero = philox({0, 0, 0, 0}, {0, 0});
    EXPECT_EQ(zero, (std::array<uint32_t, 4>{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
    uint32_t f = 0xffffffffu;
    auto ones = philox({f, f, f, f}, {f, f});
    EXPECT_EQ(ones, (std::array<uint32_t, 4>{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
}

TEST(Random, PhiloxNoiseIsNormalAndIndependentOfThreads) {
    int before = threads();
    set_threads(1);
    Tensor one = randn_philox({1000, 100}, 7);
    set_threads(4);
    Tensor four = randn_philox({1000, 100}, 7);
    set_threads(before);
    EXPECT_EQ(max_abs_difference(one, four), 0.0);
    Tensor other = randn_philox({1000, 100}, 7, 1);
    double sum = 0, squares = 0, fourth = 0, product = 0;
    for (int64_t i = 0; i < one.numel(); ++i) {
        double v = one.data<float>()[i];
        sum += v;
        squares += v * v;
        fourth += v * v * v * v;
        product += v * other.data<float>()[i];
    }
    double n = static_cast<double>(one.numel());
    EXPECT_NEAR(sum / n, 0, 0.015);  // 4.7 standard errors of 1e5 samples
    EXPECT_NEAR(squares / n, 1, 0.02);
    EXPECT_NEAR(fourth / n, 3, 0.15);
    EXPECT_NEAR(product / n, 0, 0.015);  // streams are uncorrelated
}

TEST(Random, NoiseIsWhatItsDefinitionSays) {
    // The definition in long double. One unit in the last place of fp32 is allowed where a value lies at a tie.
    for (uint64_t block = 0; block < 100000; ++block) {
        auto bits = philox({static_cast<uint32_t>(block), 0, 9, 0}, {5, 0});
        auto values = normal_block({.seed = 5, .stream = 9}, block);
        for (size_t pair = 0; pair < 4; pair += 2) {
            long double v0 = (bits[pair] + 0.5L) * 0x1p-32L, v1 = (bits[pair + 1] + 0.5L) * 0x1p-32L;
            long double radius = std::sqrt(-2 * std::log(v0)),
                        angle = 2 * std::numbers::pi_v<long double> * v1;
            for (size_t i = 0; i < 2; ++i) {
                float expected = static_cast<float>(radius * (i == 0 ? std::cos(angle) : std::sin(angle)));
                ASSERT_NEAR(values[pair + i], expected, 1.2e-7 * std::abs(expected)) << block;
            }
        }
    }
}

TEST(Random, NoiseOfEveryDeviceHasTheSameBits) {
    Device device = test_device();
    NormalSource source{.seed = 11, .stream = uint64_t{1} << 40, .mean = 0.5, .std = 3};
    Tensor host = normal_philox({1000, 101}, source), there = normal_philox({1000, 101}, source, device);
    EXPECT_EQ(max_abs_difference(host, there.to(kCpu)), 0.0);
    EXPECT_NEAR(max_abs_difference(host, full({1000, 101}, 0.5, DType::F32)), 3 * 4.5, 3.0);
}

TEST(Random, PrefixDoesNotDependOnTheLength) {
    Tensor longer = randn_philox({37}, 3), shorter = randn_philox({10}, 3);
    EXPECT_EQ(max_abs_difference(longer.outer_slice(0, 10), shorter), 0.0);
}

namespace {
void expect_torch(uint64_t seed, int64_t n, const std::vector<std::pair<int64_t, float>>& expected) {
    Tensor noise = randn_torch({n}, seed);
    for (auto [i, value] : expected)
        EXPECT_NEAR(noise.data<float>()[i], value, 2e-6) << "seed " << seed << " i " << i;
}
}  // namespace

TEST(Random, EqualsTorch) {
    expect_torch(
        0u, 5,
        {{0, 1.54099607f}, {1, -0.293428898f}, {2, -2.17878938f}, {3, 0.568431258f}, {4, -1.08452237f}});
    expect_torch(42u, 15, {{0, 0.336690366f}, {1, 0.128809407f}, {14, -0.988959908f}});
    expect_torch(42u, 16, {{0, 1.92691529f}, {1, 1.48728406f}, {8, -0.752135277f}, {15, 0.76244539f}});
    expect_torch(
        7u, 17,
        {{0, -0.820134521f}, {1, -0.324566633f}, {2, 1.92636812f}, {15, -1.35976899f}, {16, -0.866701603f}});
    expect_torch(1099511627779u, 100,
                 {{0, -0.076644294f},
                  {50, -0.376985759f},
                  {83, -0.734922707f},
                  {84, 0.393155128f},
                  {99, 0.404204816f}});
    expect_torch(0u, 1920, {{0, -1.12583983f}, {1, -1.1523602f}, {777, 0.895197332f}, {1919, -0.260044187f}});
    expect_torch(123u, 1000,
                 {{0, 0.337370187f},
                  {983, -0.777582645f},
                  {984, 0.551924348f},
                  {991, 1.52952909f},
                  {992, -1.01095521f},
                  {999, 0.0359384269f}});
}
