// A tensor as doubles with one index a dimension, for formulas in plain loops.
#pragma once

#include <cmath>
#include <vector>

#include "core/tensor.h"
#include "ops/linear.h"

namespace sana::cases {

class Values {
public:
    explicit Values(const Tensor& x) : shape_(x.shape()) {
        if (x.defined()) values_ = to_vector<double>(x);
    }
    explicit Values(const Shape& shape) : shape_(shape), values_(static_cast<size_t>(shape.numel()), 0.0) {}

    bool defined() const { return !values_.empty(); }
    int64_t dim(int axis) const { return shape_[axis]; }
    template <class... Index>
    double& operator()(Index... index) {
        return values_[offset({static_cast<int64_t>(index)...})];
    }
    template <class... Index>
    double operator()(Index... index) const {
        return values_[offset({static_cast<int64_t>(index)...})];
    }
    double& flat(int64_t i) { return values_[static_cast<size_t>(i)]; }
    double flat(int64_t i) const { return values_[static_cast<size_t>(i)]; }
    int64_t size() const { return static_cast<int64_t>(values_.size()); }
    Tensor tensor() const { return from_vector(values_, shape_); }

private:
    size_t offset(std::initializer_list<int64_t> index) const {
        check(static_cast<int>(index.size()) == shape_.rank(), index.size(), " indices for shape ", shape_);
        int64_t at = 0;
        int axis = 0;
        for (int64_t i : index) {
            check(i >= 0 && i < shape_[axis], "index ", i, " on axis ", axis, " of shape ", shape_);
            at = at * shape_[axis++] + i;
        }
        return static_cast<size_t>(at);
    }

    Shape shape_;
    std::vector<double> values_;
};

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

inline double activated(Activation activation, double x) {
    switch (activation) {
        case Activation::none: return x;
        case Activation::relu: return std::max(x, 0.0);
        case Activation::silu: return x * sigmoid(x);
        case Activation::gelu_tanh:
            return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    }
    return x;
}

inline const char* label(Activation activation) {
    switch (activation) {
        case Activation::none: return "";
        case Activation::relu: return " relu";
        case Activation::silu: return " silu";
        case Activation::gelu_tanh: return " gelu";
    }
    return "";
}

}  // namespace sana::cases
