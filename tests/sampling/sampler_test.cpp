#include "sampling/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "device.h"
#include "folders.h"
#include "ops/layout.h"
#include "ops/pointwise.h"
#include "sampling/denoise.h"

using namespace sana;

namespace {

// The velocity field of schedulers.json: v(x,t) = 0.6 sin(3x) - 0.4 x + 0.2 t/1000.
Tensor field(const Tensor& x, double t) {
    std::vector<double> values = to_vector<double>(x);
    for (double& value : values) value = 0.6 * std::sin(3 * value) - 0.4 * value + 0.2 * t / 1000;
    return from_vector(values, x.shape()).to(x.dtype()).to(x.device());
}

// Samplers run in fp32; the CPU also in fp64, as the reference did.
std::vector<DType> dtypes() {
    if (test_device() == kCpu) return {DType::F64, DType::F32};
    return {DType::F32};
}

}  // namespace

// Case names are sampler/shiftS/stepsN. The reference ran its trajectories in fp64 with fp32 sigmas.
TEST(SamplerGolden, EveryCaseOfSchedulersJson) {
    std::ifstream in(test::golden_folder() + "/schedulers.json");
    ASSERT_TRUE(in.good());
    nlohmann::json cases = nlohmann::json::parse(in).at("cases");
    ASSERT_FALSE(cases.empty());
    for (auto& [name, expected] : cases.items()) {
        SCOPED_TRACE(name);
        size_t first = name.find('/'), second = name.find('/', first + 1);
        auto kind = parse_sampler(name.substr(0, first));
        ASSERT_TRUE(kind.has_value());
        double shift = std::stod(name.substr(first + 6, second - first - 6));
        int64_t steps = std::stoll(name.substr(second + 6));
        Sampler sampler(*kind, steps, shift);
        auto sigmas = expected.at("sigmas").get<std::vector<double>>();
        auto timesteps = expected.at("timesteps").get<std::vector<double>>();
        ASSERT_EQ(sampler.schedule().sigmas.size(), sigmas.size());
        for (size_t i = 0; i < sigmas.size(); ++i)
            EXPECT_NEAR(sampler.schedule().sigmas[i], sigmas[i], 1.2e-7) << i;
        for (size_t i = 0; i < timesteps.size(); ++i) {
            // Whole timesteps must be equal; fractional ones agree to fp32 rounding at 1000.
            double bound = *kind == SamplerKind::flow_euler ? 1.3e-4 : 0;
            EXPECT_NEAR(sampler.schedule().timesteps[i], timesteps[i], bound) << i;
        }
        auto trajectory = expected.at("trajectory").get<std::vector<std::vector<double>>>();
        int64_t n = static_cast<int64_t>(trajectory[0].size());
        for (DType dtype : dtypes()) {
            Sampler run(*kind, steps, shift);
            Tensor x = on_test_device(from_vector(trajectory[0], {n}).to(dtype));
            for (size_t k = 0; k + 1 < trajectory.size(); ++k) {
                x = run.step(x, field(x, run.schedule().timesteps[k]));
                // 2e-5 is the bound of goldens.md; the reference forms some coefficients in fp32.
                EXPECT_LE(relative_l2(x, from_vector(trajectory[k + 1], {n})), 2e-5)
                    << "step " << k << " in " << name_of(dtype);
            }
        }
    }
}

TEST(Sampler, ManyStepsWithDuplicateTimestepsRun) {
    for (SamplerKind kind : {SamplerKind::dpm_solver, SamplerKind::unipc, SamplerKind::flow_euler}) {
        Sampler sampler(kind, 150, 8);
        Tensor x = full({4}, 0.5, DType::F64);
        for (int64_t k = 0; k < 150; ++k)
            x = sampler.step(x, field(x, sampler.schedule().timesteps[static_cast<size_t>(k)]));
        for (int64_t i = 0; i < 4; ++i) EXPECT_TRUE(std::isfinite(x.data<double>()[i]));
    }
}

// With the velocity that leads straight to the clean sample every sampler gets there, wherever it begins.
TEST(Sampler, BeginsWithAnyStep) {
    Tensor clean = full({3}, 0.25, DType::F64), noise = full({3}, -1.5, DType::F64);
    for (SamplerKind kind : {SamplerKind::dpm_solver, SamplerKind::unipc, SamplerKind::flow_euler})
        for (int64_t first : {0, 1, 5, 8, 9}) {
            Sampler sampler(kind, 10, 6, first);
            EXPECT_EQ(sampler.position(), first);
            double sigma = sampler.schedule().sigmas[static_cast<size_t>(first)];
            Tensor x = combine({{1 - sigma, clean}, {sigma, noise}});
            while (sampler.position() < sampler.steps())
                x = sampler.step(x, combine({{1, noise}, {-1, clean}}));
            EXPECT_LE(max_abs_difference(x, clean), 1e-9) << name_of(kind) << " from step " << first;
        }
}

TEST(Sampler, RefusesBadSettings) {
    EXPECT_THROW(Sampler(SamplerKind::unipc, 0, 8), InputError);
    EXPECT_THROW(Sampler(SamplerKind::unipc, 1001, 8), InputError);
    EXPECT_THROW(Sampler(SamplerKind::unipc, 5, 0), InputError);
    EXPECT_FALSE(parse_sampler("heun").has_value());
}

// The first frame goes through untouched, to the bit, and the others move as they would alone.
TEST(Denoise, KeepsTheFirstFrame) {
    for (SamplerKind kind : {SamplerKind::dpm_solver, SamplerKind::unipc, SamplerKind::flow_euler}) {
        for (DType dtype : dtypes()) {
            Tensor x = empty({1, 3, 2, 2, 1}, DType::F64);
            for (int64_t i = 0; i < x.numel(); ++i) x.data<double>()[i] = 0.3 * static_cast<double>(i) - 1;
            x = on_test_device(x.to(dtype));
            Sampler sampler(kind, 5, 8), alone(kind, 5, 8);
            Tensor out = denoise(x, sampler, 1, field), rest = slice(x, 1, 1, 2);
            EXPECT_EQ(max_abs_difference(slice(out, 1, 0, 1), slice(x, 1, 0, 1)), 0.0);
            EXPECT_EQ(max_abs_difference(slice(out, 1, 1, 2), denoise(rest, alone, 0, field)), 0.0);
        }
    }
}

TEST(Denoise, CanBeCancelledBetweenSteps) {
    Sampler sampler(SamplerKind::flow_euler, 5, 8);
    int64_t seen = 0;
    DenoiseHooks hooks{.on_step = [&](int64_t k, int64_t, const Tensor&, const Tensor&) { seen = k; },
                       .cancelled = [&] { return seen == 2; }};
    EXPECT_THROW(denoise(full({1, 1, 2, 2, 1}, 1, DType::F64), sampler, 0, field, hooks), Cancelled);
    EXPECT_EQ(seen, 2);
}
