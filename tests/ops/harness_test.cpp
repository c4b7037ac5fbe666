// The harness finds what it is for: ops that are wrong in one way each.
#include "bench/harness.h"

#include <gtest/gtest.h>

#include <cstring>

#include "ops/pointwise.h"

namespace sana {
namespace {

using cases::Case;
using cases::Generator;
using cases::Inputs;
using cases::Tensors;

Tensors twice(const Tensors& in) { return {add(in[0], in[0])}; }

// A case of the op y = 2 x on [5, 60], done by `run`.
Case doubling(std::function<Tensors(const Tensors&)> run) {
    Case out{.name = "doubling", .bounds = {1e-7, cases::kRoundBf16, cases::kRoundF16}};
    out.tests.push_back({.name = "x[5, 60]",
                         .inputs =
                             [](Generator& g) {
                                 return Inputs{cases::strided(g.normal({5, 60}))};
                             },
                         .run = std::move(run),
                         .reference = twice});
    return out;
}

void expect_failure(const Case& one, const std::string& part) {
    std::string all;
    for (const std::string& failure : cases::check_case(one).failures) all += failure + "\n";
    EXPECT_NE(all.find(part), std::string::npos) << "expected: " << part << "\nfound: " << all;
}

TEST(Harness, AcceptsWhatIsRight) { EXPECT_TRUE(cases::check_case(doubling(twice)).failures.empty()); }

TEST(Harness, FindsAWrongFormula) {
    expect_failure(doubling([](const Tensors& in) {
                       return Tensors{combine({{2.0000001, in[0]}})};
                   }),
                   "in fp64 against its formula");
}

TEST(Harness, FindsASecondRounding) {
    // The same product in two steps: equal in fp64, within the bound in fp32.
    Case one = doubling([](const Tensors& in) {
        return Tensors{combine({{1.3 / 1.1, combine({{1.1, in[0]}})}})};
    });
    one.tests[0].reference = [](const Tensors& in) { return Tensors{combine({{1.3, in[0]}})}; };
    expect_failure(one, "in bf16: result 0 has relative L2");
    expect_failure(one, "in fp16: result 0 has relative L2");
}

TEST(Harness, FindsAnElementThatIsNotWritten) {
    expect_failure(doubling([](const Tensors& in) {
                       Tensor y = twice(in)[0], incomplete = empty_like(y);
                       std::memcpy(incomplete.raw(), y.raw(), static_cast<size_t>(y.bytes() - 8));
                       return Tensors{incomplete};
                   }),
                   "in fp32: result 0 has relative L2 inf");
}

TEST(Harness, FindsOneWrongElement) {
    expect_failure(doubling([](const Tensors& in) {
                       Tensor y = twice(in)[0];
                       if (y.dtype() == DType::BF16)
                           y.data<bf16>()[7] = bf16(float(y.data<bf16>()[7]) + 0.1f);
                       return Tensors{y};
                   }),
                   "in bf16: result 0 has a largest error of");
}

TEST(Harness, FindsAWriteBehindTheResult) {
    expect_failure(doubling([](const Tensors& in) {
                       Tensor y = twice(in)[0];
                       // Inside the allocator's block in every case, so only sentinels can tell.
                       if (y.dtype() == DType::F32)
                           static_cast<volatile std::byte*>(y.raw())[y.bytes()] = std::byte{0};
                       return Tensors{y};
                   }),
                   "in fp32 wrote outside");
}

TEST(Harness, FindsAChangedInput) {
    expect_failure(doubling([](const Tensors& in) {
                       Tensors y = twice(in);
                       if (in[0].dtype() == DType::F16) in[0].data<f16>()[0] = f16(7.0f);
                       return y;
                   }),
                   "in fp16 changed its input 0");
}

TEST(Harness, FindsResultsThatVary) {
    int calls = 0;
    expect_failure(doubling([&](const Tensors& in) {
                       return Tensors{combine({{++calls % 2 == 0 ? 2.0 : 2.0000002, in[0]}})};
                   }),
                   "in fp32 gave other bits the second time");
}

TEST(Harness, FindsRowsTakenForDense) {
    expect_failure(
        doubling([](const Tensors& in) {
            return twice({Tensor(in[0].storage(), in[0].byte_offset(), in[0].dtype(), in[0].shape())});
        }),
        "in fp32 with strided rows");
}

TEST(Harness, ReportsWhatAnOpThrows) {
    expect_failure(doubling([](const Tensors& in) { return Tensors{add(in[0], Tensor())}; }), "threw: add");
}

TEST(Harness, BothSeeEqualInputs) {
    Generator g;
    Inputs in{g.normal({300}), cases::sums(g.normal({300})), g.ids({300}, 1000)};
    Tensors low = cases::prepare(in, DType::BF16, kCpu, false, false);
    Tensors high = cases::prepare(in, DType::BF16, kCpu, true, false);
    EXPECT_EQ(low[0].dtype(), DType::BF16);
    EXPECT_EQ(low[1].dtype(), DType::F32);
    EXPECT_EQ(low[2].dtype(), DType::I32);
    EXPECT_EQ(high[0].dtype(), DType::F64);
    EXPECT_EQ(high[1].dtype(), DType::F64);
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(max_abs_difference(low[i], high[i]), 0) << i;
}

}  // namespace
}  // namespace sana
