// What is known about an op besides its code: inputs to try, a formula to agree with, how exact it is, what it costs.
// One list of cases serves the op tests (bench/harness.h) and the op benchmark (bench/ops_bench.h).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace sana::cases {

using Tensors = std::vector<Tensor>;

// How an input follows the dtype under test.
enum class Role {
    data,   // of the dtype under test
    sums,   // fp32, fp64 when the op runs in fp64 (states)
    fixed,  // as it is made (ids, masks, rope tables)
};

struct Input {
    Tensor value;  // none: the optional argument is left out
    Role role = Role::data;
    bool strided = false;  // the op also takes it with strided rows
};
using Inputs = std::vector<Input>;

inline Input strided(Input input) {
    input.strided = true;
    return input;
}
inline Input sums(Input input) {
    input.role = Role::sums;
    return input;
}
inline Input fixed(const Tensor& value) { return {value, Role::fixed, false}; }

// Makes inputs from a fixed seed; every call gives new values. Element i depends on (call number, i) alone.
class Generator {
public:
    // Tests make fp64 and round; benchmarks make the dtype at once, with uniform values in place of normal ones.
    explicit Generator(DType dtype = DType::F64, bool cheap = false) : dtype_(dtype), cheap_(cheap) {}

    Input normal(const Shape& shape, double deviation = 1, double mean = 0);
    Input uniform(const Shape& shape, double low, double high);
    Input ids(const Shape& shape, int64_t count);     // int32 in [0, count)
    Input mask(const Shape& shape, double kept);      // int32 0 or 1, a share `kept` of ones
    Input integers(const Shape& shape, DType dtype);  // 0 .. 99 of an integer dtype

private:
    DType dtype_;
    bool cheap_;
    uint64_t calls_ = 0;
};

// One set of inputs and options of an op.
struct Instance {
    std::string name;  // sizes and options: "B2 N48 C96 gate"
    std::function<Inputs(Generator&)> inputs;
    std::function<Tensors(const Tensors&)> run;
    // The op's formula in plain loops over doubles, independent of the op's code.
    std::function<Tensors(const Tensors&)> reference;
    double flops = 0;
    double f32_bound = 0;  // replaces a smaller Bounds::f32 where the inputs themselves cost digits
    // Bytes that must move, given those of all inputs and outputs; left out when that is their sum.
    std::function<double(const Tensors& inputs, const Tensors& outputs)> bytes = {};
};

// Largest ||y - oracle|| / ||oracle|| against fp64 on equal inputs, by dtype; 0 demands equality. A result of fewer than
// 256 elements may have twice that, as the mean of few rounding errors can be near their largest.
struct Bounds {
    double f32, bf16, f16;
    // max |y - oracle| over the 99.9th percentile of |oracle|, in units of the bound above.
    double peak = 4;
};

// One rounding to 16 bits at the end: an error spread evenly over half a unit in the last place has 1.66e-3 (bf16) and
// 2.1e-4 (fp16) in relative L2; a second rounding somewhere inside would give 2.3e-3 and 2.9e-4.
constexpr double kRoundBf16 = 2.0e-3, kRoundF16 = 2.5e-4;

struct Case {
    std::string name;  // of the op
    Bounds bounds;
    std::vector<Instance> tests = {};
    std::vector<Instance> bench_cpu = {};  // scaled down to what a few cores do in a fraction of a second
    std::vector<Instance> bench_gpu = {};  // sizes of the released models
    std::vector<DType> dtypes = {DType::F32, DType::BF16, DType::F16};
};

std::vector<Case> linear_cases();
std::vector<Case> norm_cases();
std::vector<Case> rope_cases();
std::vector<Case> attention_cases();
std::vector<Case> linear_attention_cases();
std::vector<Case> conv_cases();
std::vector<Case> mix_ffn_cases();
std::vector<Case> pointwise_cases();
std::vector<Case> embed_cases();
std::vector<Case> layout_cases();
std::vector<Case> fp8_cases();
std::vector<Case> depth_to_space_cases();

std::vector<Case> all_cases();

}  // namespace sana::cases
