// Recordings give what the work itself gives, and work that cannot be recorded is done all the same.
#include "core/graph_cache.h"

#include <gtest/gtest.h>

#include "core/random.h"
#include "device.h"
#include "ops/linear.h"
#include "ops/pointwise.h"

using namespace sana;

namespace {

Tensor noise(const Shape& shape, uint64_t stream) { return on_test_device(randn_philox(shape, 1, stream)); }
bool on_gpu() { return test_device() != kCpu; }

}  // namespace

TEST(GraphCache, RepeatsItsWorkOnNewInputs) {
    Tensor weight = noise({32, 64}, 1), second = noise({64, 32}, 2);
    GraphCache graphs(test_device());
    int64_t calls = 0;
    auto f = [&](const std::vector<Tensor>& in) {
        ++calls;
        Tensor h = linear(in[0], weight, {}, {.activation = Activation::silu});
        return add(linear(h, second), in[1]);
    };
    std::vector<Tensor> others;  // memory that is taken between two launches must not be the recording's
    for (uint64_t i = 0; i < 6; ++i) {
        std::vector<Tensor> in = {noise({40, 64}, 10 + i), noise({40, 64}, 20 + i)};
        Tensor y = graphs.run("work", in, f);
        others.push_back(full({40, 64}, 1e30, DType::F32, test_device()));
        others.push_back(full({40, 32}, 1e30, DType::F32, test_device()));
        EXPECT_EQ(max_abs_difference(y.to(kCpu), f(in).to(kCpu)), 0.0) << i;
    }
    EXPECT_EQ(graphs.recorded(), on_gpu() ? 1 : 0);
    EXPECT_EQ(calls, on_gpu() ? 6 + 2 : 12);  // six by the test; one to begin with and one to record
}

TEST(GraphCache, KeysAreApart) {
    GraphCache graphs(test_device());
    Tensor x = noise({7, 8}, 3);
    for (int i = 0; i < 4; ++i) {
        for (double factor : {2.0, 3.0}) {
            Tensor y = graphs.run(join("times ", factor), {x}, [&](const std::vector<Tensor>& in) {
                return combine({{factor, in[0]}});
            });
            EXPECT_EQ(max_abs_difference(y.to(kCpu), combine({{factor, x.to(kCpu)}})), 0.0);
        }
    }
    EXPECT_EQ(graphs.recorded(), on_gpu() ? 2 : 0);
}

TEST(GraphCache, WorkThatReadsFromTheDeviceIsDoneAsItIs) {
    std::vector<std::string> notes;
    GraphCache graphs(test_device(), [&](const std::string& note) { notes.push_back(note); });
    Tensor x = noise({7, 8}, 3);
    auto f = [&](const std::vector<Tensor>& in) {
        double first = to_vector<double>(in[0].to(kCpu))[0];
        return combine({{first, in[0]}});
    };
    for (int i = 0; i < 4; ++i)
        EXPECT_EQ(max_abs_difference(graphs.run("reader", {x}, f).to(kCpu), f({x}).to(kCpu)), 0.0);
    EXPECT_EQ(graphs.recorded(), 0);
    EXPECT_EQ(notes.size(), on_gpu() ? 1u : 0u);
    // What follows on the device is not disturbed.
    EXPECT_EQ(max_abs_difference(add(x, x).to(kCpu), combine({{2, x.to(kCpu)}})), 0.0);
}

TEST(GraphCache, InputsOfAnotherShapeAreRefused) {
    if (!on_gpu()) GTEST_SKIP() << "nothing is recorded on the CPU";
    GraphCache graphs(test_device());
    auto f = [&](const std::vector<Tensor>& in) { return add(in[0], in[0]); };
    for (int i = 0; i < 3; ++i) graphs.run("sum", {noise({4, 8}, 1)}, f);
    EXPECT_THROW(graphs.run("sum", {noise({5, 8}, 1)}, f), Error);
}
