#include "bench/harness.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace sana::cases {

namespace {

// The op in fp64 and the formula in doubles differ by the order of sums alone; exponents and powers of large arguments
// add a digit.
constexpr double kOracleBound = 1e-12;
constexpr int64_t kMargin = 3;  // odd, so that strided rows begin at unaligned addresses

DType dtype_for(const Input& input, DType dtype) {
    switch (input.role) {
        case Role::data: return dtype;
        case Role::sums: return dtype == DType::F64 ? DType::F64 : DType::F32;
        case Role::fixed: return input.value.dtype();
    }
    return dtype;
}

// The same values as columns of a tensor that is wider on both sides.
Tensor widened(const Tensor& x, Device device) {
    Shape shape = x.shape();
    shape[-1] += 2 * kMargin;
    Tensor columns = empty(shape, x.dtype(), device).cols_slice(kMargin, x.cols());
    copy(x, columns);
    return columns;
}

bool same_bits(const Tensor& a, const Tensor& b) {
    if (a.defined() != b.defined()) return false;
    if (!a.defined()) return true;
    if (a.dtype() != b.dtype() || !(a.shape() == b.shape())) return false;
    Tensor x = a.to(kCpu).contiguous(), y = b.to(kCpu).contiguous();
    return x.bytes() == 0 || std::memcmp(x.raw(), y.raw(), static_cast<size_t>(x.bytes())) == 0;
}

double bound_of(const Bounds& bounds, DType dtype) {
    switch (dtype) {
        case DType::F32: return bounds.f32;
        case DType::BF16: return bounds.bf16;
        case DType::F16: return bounds.f16;
        default: return kOracleBound;
    }
}

class Checker {
public:
    Checker(const Case& one, Device device) : case_(one), device_(device) {}

    Report run() {
        for (DType dtype : case_.dtypes) report_.worst.push_back({dtype, {}});
        for (const Instance& instance : case_.tests) {
            instance_ = &instance;
            try {
                Generator generator;
                Inputs inputs = instance.inputs(generator);
                oracle(inputs);
                for (DType dtype : case_.dtypes) in_dtype(inputs, dtype);
            } catch (const std::exception& error) {
                failure("threw: ", error.what());
            }
        }
        return std::move(report_);
    }

private:
    template <class... Parts>
    void failure(const Parts&... parts) {
        report_.failures.push_back(join(case_.name, " (", instance_->name, ") ", parts...));
    }

    // The op itself in fp64 against its formula.
    void oracle(const Inputs& inputs) {
        Tensors in = prepare(inputs, DType::F64, kCpu, false, false);
        Tensors y = instance_->run(in), formula = instance_->reference(in);
        compare("in fp64 against its formula", y, formula, {kOracleBound, kOracleBound, kOracleBound});
    }

    void in_dtype(const Inputs& inputs, DType dtype) {
        Tensors expected = instance_->run(prepare(inputs, dtype, kCpu, true, false));
        int64_t violations = MemoryGuard::violations();
        {
            MemoryGuard guard;
            Tensors in = prepare(inputs, dtype, device_, false, false);
            Tensors y = instance_->run(in);
            Difference worst = compare(join("in ", dtype), y, expected, case_.bounds);
            for (Report::Worst& w : report_.worst) {
                if (w.dtype != dtype) continue;
                w.value.l2 = std::max(w.value.l2, worst.l2);
                w.value.peak = std::max(w.value.peak, worst.peak);
            }
            Tensors fresh = prepare(inputs, dtype, device_, false, false);
            for (size_t i = 0; i < in.size(); ++i) {
                if (!same_bits(in[i], fresh[i])) failure("in ", dtype, " changed its input ", i);
            }
            Tensors again = instance_->run(in);
            for (size_t i = 0; i < y.size(); ++i) {
                if (!same_bits(y[i], again[i])) failure("in ", dtype, " gave other bits the second time");
            }
            bool any = std::any_of(inputs.begin(), inputs.end(), [](const Input& x) { return x.strided; });
            if (any) {
                Tensors z = instance_->run(prepare(inputs, dtype, device_, false, true));
                compare(join("in ", dtype, " with strided rows"), z, expected, case_.bounds);
            }
        }
        if (MemoryGuard::violations() != violations)
            failure("in ", dtype, " wrote outside a block of memory");
    }

    Difference compare(const std::string& what, const Tensors& y, const Tensors& expected,
                       const Bounds& bounds) {
        Difference worst;
        if (y.size() != expected.size()) {
            failure(what, ": ", y.size(), " results instead of ", expected.size());
            return worst;
        }
        for (size_t i = 0; i < y.size(); ++i) {
            Tensor host = y[i].to(kCpu);
            if (!(host.shape() == expected[i].shape())) {
                failure(what, ": result ", i, " is ", host, " instead of ", expected[i]);
                continue;
            }
            Difference d = difference(host, expected[i]);
            double bound = bound_of(bounds, host.dtype()) * (host.numel() < 256 ? 2 : 1);
            if (host.dtype() == DType::F32) bound = std::max(bound, instance_->f32_bound);
            if (!(d.l2 <= bound)) failure(what, ": result ", i, " has relative L2 ", d.l2, " above ", bound);
            if (!(d.peak <= bound * bounds.peak)) {
                failure(what, ": result ", i, " has a largest error of ", d.peak, " above ",
                        bound * bounds.peak);
            }
            worst.l2 = std::max(worst.l2, d.l2);
            worst.peak = std::max(worst.peak, d.peak);
        }
        return worst;
    }

    const Case& case_;
    Device device_;
    const Instance* instance_ = nullptr;
    Report report_;
};

}  // namespace

Tensors prepare(const Inputs& inputs, DType dtype, Device device, bool oracle, bool strided) {
    Tensors out;
    for (const Input& input : inputs) {
        if (!input.value.defined()) {
            out.push_back({});
            continue;
        }
        Tensor x = input.value.to(dtype_for(input, dtype));
        if (oracle && input.role != Role::fixed) x = x.to(DType::F64);
        bool columns = strided && input.strided;
        if (columns) {
            out.push_back(widened(x, device));
        } else {
            out.push_back(device == kCpu ? x.clone() : x.to(device));
        }
    }
    return out;
}

Difference difference(const Tensor& y, const Tensor& oracle) {
    Difference out{relative_l2(y, oracle), 0};
    if (oracle.numel() == 0) return out;
    double largest = max_abs_difference(y, oracle);
    std::vector<double> sizes = to_vector<double>(oracle);
    for (double& v : sizes) v = std::abs(v);
    auto rank =
        sizes.begin() + static_cast<int64_t>(std::ceil(0.999 * static_cast<double>(sizes.size() - 1)));
    std::nth_element(sizes.begin(), rank, sizes.end());
    out.peak = *rank > 0 ? largest / *rank : largest;
    return out;
}

Report check_case(const Case& one, Device device) { return Checker(one, device).run(); }

}  // namespace sana::cases
