// Every op against its fp64 form and its formula, over the cases that the benchmark shares (bench/case.h).
#include <gtest/gtest.h>

#include <set>

#include "bench/harness.h"
#include "device.h"
#include "ops/kernels.h"

namespace sana {
namespace {

const std::vector<cases::Case>& all() {
    static const std::vector<cases::Case> list = cases::all_cases();
    return list;
}

class Op : public ::testing::TestWithParam<size_t> {};

TEST_P(Op, KeepsItsBounds) {
    const cases::Case& one = all()[GetParam()];
    cases::Report report = cases::check_case(one, test_device());
    for (const std::string& failure : report.failures) ADD_FAILURE() << failure;
    for (const auto& worst : report.worst) {
        RecordProperty(join(worst.dtype, "_l2"), join(worst.value.l2));
        RecordProperty(join(worst.dtype, "_peak"), join(worst.value.peak));
    }
}

INSTANTIATE_TEST_SUITE_P(Cases, Op, ::testing::Range(size_t{0}, all().size()),
                         [](const auto& param) { return all()[param.param].name; });

TEST(Ops, EveryKernelHasACase) {
    std::set<std::string> names;
    for (const cases::Case& one : all()) {
        EXPECT_TRUE(names.insert(one.name).second) << one.name << " twice";
        EXPECT_FALSE(one.tests.empty() || one.bench_cpu.empty() || one.bench_gpu.empty()) << one.name;
    }
    // strided_copy is the kernel of concat, slice and permute.
    EXPECT_EQ(names.size(), sizeof(Kernels) / sizeof(void*) - 1 + 3);
}

}  // namespace
}  // namespace sana
