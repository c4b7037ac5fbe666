// RMS norm with a learned weight.
#pragma once

#include "nn/module.h"
#include "ops/norm.h"

namespace sana {

struct RmsNorm {
    Parameter weight;  // [C]
    RmsNormOptions options;

    RmsNorm() = default;
    RmsNorm(int64_t channels, const RmsNormOptions& o) : options(o) {
        weight = same_layout({channels}, {.mean = 1.0 - static_cast<double>(o.weight_offset)});
    }

    Tensor forward(const Tensor& x) const { return rms_norm(x, weight.value, options); }
    void visit(auto& v) { v("weight", weight); }
};

}  // namespace sana
