// The step cache: which steps it computes, what it returns for the others, and what it leaves alone.
#include "sampling/step_cache.h"

#include <gtest/gtest.h>

#include "core/random.h"
#include "device.h"
#include "ops/pointwise.h"
#include "sampling/denoise.h"

using namespace sana;

namespace {

// Velocities of a model that pulls towards fixed latents, more weakly near the end.
struct Model {
    Tensor target = on_test_device(randn_philox({1, 3, 4, 5, 8}, 1));
    int64_t calls = 0;

    Tensor operator()(const Tensor& x, double t) {
        ++calls;
        double pull = 0.4 + 0.6 * t / 1000;
        return combine({{pull, x}, {-pull, target}});
    }
};

struct Clip {
    Tensor latents;
    int64_t calls = 0, skipped = 0;
};

Clip run(SamplerKind kind, int64_t steps, double threshold) {
    Model model;
    Sampler sampler(kind, steps, 8);
    Tensor noise = on_test_device(randn_philox({1, 3, 4, 5, 8}, 2));
    auto direct = [&](const Tensor& x, double t) { return model(x, t); };
    if (threshold == 0) return {denoise(noise, sampler, 0, direct), model.calls, 0};
    StepCache cache(threshold, steps);
    auto cached = [&](const Tensor& x, double t) { return cache.velocity(x, t, direct); };
    Tensor latents = denoise(noise, sampler, 0, cached);
    return {latents, model.calls, cache.skipped()};
}

constexpr SamplerKind kKinds[] = {SamplerKind::dpm_solver, SamplerKind::unipc, SamplerKind::flow_euler};

}  // namespace

TEST(StepCache, NearlyZeroThresholdComputesEveryStep) {
    for (SamplerKind kind : kKinds) {
        Clip exact = run(kind, 20, 0), cached = run(kind, 20, 1e-12);
        EXPECT_EQ(cached.calls, 20) << name_of(kind);
        EXPECT_EQ(cached.skipped, 0) << name_of(kind);
        EXPECT_EQ(max_abs_difference(cached.latents.to(kCpu), exact.latents.to(kCpu)), 0.0) << name_of(kind);
    }
}

TEST(StepCache, LargerThresholdSkipsMoreAndErrsMore) {
    for (SamplerKind kind : kKinds) {
        Tensor exact = run(kind, 50, 0).latents.to(kCpu);
        Clip fine = run(kind, 50, 0.02), coarse = run(kind, 50, 0.2);
        EXPECT_EQ(fine.calls + fine.skipped, 50) << name_of(kind);
        EXPECT_GT(fine.skipped, 0) << name_of(kind);
        EXPECT_GT(coarse.skipped, fine.skipped) << name_of(kind);
        double small = relative_l2(fine.latents.to(kCpu), exact),
               large = relative_l2(coarse.latents.to(kCpu), exact);
        EXPECT_LT(small, large) << name_of(kind);
        // A skipped velocity is off by less than the threshold of its size, and velocities differ in a factor below 3 here.
        EXPECT_LT(small, 3 * 0.02) << name_of(kind);
        EXPECT_GT(small, 0) << name_of(kind);
    }
}

TEST(StepCache, SameInputsSameBits) {
    Clip first = run(SamplerKind::unipc, 30, 0.1), second = run(SamplerKind::unipc, 30, 0.1);
    EXPECT_EQ(first.skipped, second.skipped);
    EXPECT_EQ(max_abs_difference(first.latents.to(kCpu), second.latents.to(kCpu)), 0.0);
}

// By hand: x = 10, 9, 8.5, 8.3, 8.2, ...; |v| from a table. k and the sums follow from the formula in the header.
TEST(StepCache, FollowsItsFormula) {
    auto scalar = [](double value) { return on_test_device(full({1, 1}, value, DType::F32)); };
    StepCache cache(0.1, 10);
    const double x[] = {10, 9, 8.5, 8.25, 8, 7, 6.75, 6.5, 6.25, 6}, v[] = {4, 3, 0, 0, 0, 2.5, 0, 0, 0, 2};
    // Steps 0 and 1 are computed: k = 1. Step 2: e = 0.5 / 3 = 0.17: computed; v = 2.75 gives k = 0.25 / 0.5 = 0.5.
    // Step 3: 0.5 * 0.25 / 2.75 = 0.045: skipped. Step 4: 0.091: skipped. Step 5: + 0.5 / 2.75: computed, v = 2.5, k = 0.25 / 1.5.
    // Steps 6, 7, 8: 0.25 / 6 / 2.5 = 0.017 each: skipped. Step 9 is the last: computed.
    const bool computed[] = {true, true, true, false, false, true, false, false, false, true};
    const double expected[] = {4, 3, 2.75, 2.5, 2.25, 2.5, 2.25, 2, 1.75, 2};
    for (size_t i = 0; i < 10; ++i) {
        bool called = false;
        Tensor y = cache.velocity(scalar(x[i]), 0, [&](const Tensor&, double) {
            called = true;
            return scalar(i == 2 ? 2.75 : v[i]);
        });
        EXPECT_EQ(called, computed[i]) << i;
        EXPECT_EQ(to_vector<double>(y.to(kCpu))[0], expected[i]) << i;
    }
    EXPECT_EQ(cache.skipped(), 5);
}

TEST(StepCache, ThresholdOfZeroIsRefused) { EXPECT_THROW(StepCache(0, 10), InputError); }
