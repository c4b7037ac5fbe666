#include "ops/norm.h"

#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/simd.h"

namespace sana::cpu {

namespace {

// f(row index, row as compute type in a scratch buffer) for every row; f's result in the buffer is stored to y.
template <class T, class F>
void for_each_row(const Tensor& x, Tensor& y, F f) {
    using C = compute_t<T>;
    int64_t rows = x.rows(), cols = x.cols();
    const T* from = x.data<T>();
    T* to = y.data<T>();
#pragma omp parallel if (rows * cols > 1 << 14)
    {
        std::vector<C> row(static_cast<size_t>(cols));
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; ++r) {
            to_compute(from + r * x.row_stride(), row.data(), cols);
            f(r, row.data());
            from_compute(row.data(), to + r * y.row_stride(), cols);
        }
    }
}

template <class C>
C sum_of_squares(const C* x, int64_t n) {
    C sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
    return sum;
}

template <class T>
std::vector<compute_t<T>> computed(const Tensor& x) {
    std::vector<compute_t<T>> out(static_cast<size_t>(x.numel()));
    for (int64_t r = 0; r < x.rows(); ++r) {
        to_compute(x.data<T>() + r * x.row_stride(), out.data() + r * x.cols(), x.cols());
    }
    return out;
}

}  // namespace

void layer_norm_modulate(const LayerNormModulateArgs& args) {
    dispatch_float(args.x.dtype(), [&]<class T>() {
        using C = compute_t<T>;
        int64_t tokens = args.x.dim(1), groups = args.shift.dim(1), cols = args.x.cols();
        int64_t tokens_per_group = tokens / groups;
        std::vector<C> shift = computed<T>(args.shift), scale = computed<T>(args.scale);
        for_each_row<T>(args.x, args.y, [&](int64_t r, C* row) {
            C mean = 0, rest = 0, squares = 0, count = static_cast<C>(cols);
#pragma omp simd reduction(+ : mean)
            for (int64_t c = 0; c < cols; ++c) mean += row[c];
            mean /= count;
            // The mean of what is left corrects a sum that rounded far from zero.
#pragma omp simd reduction(+ : rest, squares)
            for (int64_t c = 0; c < cols; ++c) {
                row[c] -= mean;
                rest += row[c];
                squares += row[c] * row[c];
            }
            rest /= count;
            C variance = squares / count - rest * rest;
            variance = variance < 0 ? C(0) : variance;  // by rounding, when all elements are equal
            C scaling = 1 / std::sqrt(variance + static_cast<C>(args.eps));
            int64_t group = r / tokens * groups + r % tokens / tokens_per_group;
            const C* b = shift.data() + group * cols;
            const C* a = scale.data() + group * cols;
#pragma omp simd
            for (int64_t c = 0; c < cols; ++c) row[c] = (row[c] - rest) * scaling * (1 + a[c]) + b[c];
        });
    });
}

void rms_norm(const RmsNormArgs& args) {
    const RmsNormOptions& o = args.options;
    dispatch_float(args.x.dtype(), [&]<class T>() {
        using C = compute_t<T>;
        int64_t cols = args.x.cols();
        std::vector<C> factor(static_cast<size_t>(cols), C(1));
        if (args.weight.defined()) {
            factor = computed<T>(args.weight);
            for (C& f : factor) f += static_cast<C>(o.weight_offset);
        }
        for_each_row<T>(args.x, args.y, [&](int64_t, C* row) {
            C squares = sum_of_squares(row, cols);
            C r = o.floor > 0 ? std::sqrt(static_cast<C>(cols)) /
                                    std::max(std::sqrt(squares), static_cast<C>(o.floor))
                              : 1 / std::sqrt(squares / static_cast<C>(cols) + static_cast<C>(o.eps));
            const C* f = factor.data();
#pragma omp simd
            for (int64_t c = 0; c < cols; ++c) row[c] = row[c] * r * f[c];
            activate_row(o.activation, row, cols);
        });
    });
}

}  // namespace sana::cpu
