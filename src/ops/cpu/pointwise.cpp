#include "ops/pointwise.h"

#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/simd.h"

namespace sana::cpu {

namespace {

constexpr int64_t kChunk = 2048;

// f(first column, length, output buffer, row index) for pieces of rows of y.
template <class T, class F>
void for_each_piece(const Tensor& y, F f) {
    using C = compute_t<T>;
    int64_t rows = y.rows(), cols = y.cols(), pieces = (cols + kChunk - 1) / kChunk;
    parallel_for(rows * pieces, std::min(cols, kChunk) * 4, [&](int64_t task) {
        C buffer[kChunk];
        int64_t row = task / pieces, start = task % pieces * kChunk, n = std::min(kChunk, cols - start);
        f(row, start, n, buffer);
        from_compute(buffer, y.data<T>() + row * y.row_stride() + start, n);
    });
}

template <class T>
const T* at(const Tensor& x, int64_t row, int64_t column) {
    return x.data<T>() + row * x.row_stride() + column;
}

template <class F>
void binary(const BinaryArgs& args, F f) {
    dispatch_float(args.y.dtype(), [&]<class T>() {
        using C = compute_t<T>;
        for_each_piece<T>(args.y, [&](int64_t row, int64_t start, int64_t n, C* out) {
            const T* a = at<T>(args.a, row, start);
            const T* b = at<T>(args.b, row, start);
#pragma omp simd
            for (int64_t i = 0; i < n; ++i) out[i] = f(static_cast<C>(a[i]), static_cast<C>(b[i]));
        });
    });
}

}  // namespace

void activate(const ActivateArgs& args) {
    dispatch_float(args.y.dtype(), [&]<class T>() {
        using C = compute_t<T>;
        for_each_piece<T>(args.y, [&](int64_t row, int64_t start, int64_t n, C* out) {
            to_compute(at<T>(args.x, row, start), out, n);
            activate_row(args.activation, out, n);
        });
    });
}

void add(const BinaryArgs& args) {
    binary(args, [](auto a, auto b) { return a + b; });
}

void gelu_multiply(const BinaryArgs& args) {
    binary(args, [](auto a, auto b) { return gelu_tanh_(a) * b; });
}

void clamp(const ClampArgs& args) {
    dispatch_float(args.y.dtype(), [&]<class T>() {
        using C = compute_t<T>;
        C low = static_cast<C>(args.low), high = static_cast<C>(args.high);
        for_each_piece<T>(args.y, [&](int64_t row, int64_t start, int64_t n, C* out) {
            const T* x = at<T>(args.x, row, start);
#pragma omp simd
            for (int64_t i = 0; i < n; ++i) {
                C value = static_cast<C>(x[i]);
                value = value < low ? low : value;  // NaN stays NaN
                out[i] = value > high ? high : value;
            }
        });
    });
}

void affine(const AffineArgs& args) {
    dispatch_float(args.y.dtype(), [&]<class T>() {
        using C = compute_t<T>;
        size_t cols = static_cast<size_t>(args.y.cols());
        std::vector<C> scale(cols, C(1)), shift(cols, C(0));
        if (args.scale.defined()) to_compute(args.scale.data<T>(), scale.data(), args.y.cols());
        if (args.shift.defined()) to_compute(args.shift.data<T>(), shift.data(), args.y.cols());
        for_each_piece<T>(args.y, [&](int64_t row, int64_t start, int64_t n, C* out) {
            const T* x = at<T>(args.x, row, start);
            const C* a = scale.data() + start;
            const C* b = shift.data() + start;
#pragma omp simd
            for (int64_t i = 0; i < n; ++i) out[i] = static_cast<C>(x[i]) * a[i] + b[i];
        });
    });
}

void combine(const CombineArgs& args) {
    dispatch_float(args.y.dtype(), [&]<class T>() {
        using C = compute_t<T>;
        for_each_piece<T>(args.y, [&](int64_t row, int64_t start, int64_t n, C* out) {
            std::fill(out, out + n, C(0));
            for (const auto& [factor, x] : args.terms) {
                const T* in = at<T>(x, row, start);
                C f = static_cast<C>(factor);
#pragma omp simd
                for (int64_t i = 0; i < n; ++i) out[i] += f * static_cast<C>(in[i]);
            }
        });
    });
}

void group_mean(const GroupMeanArgs& args) {
    dispatch_float(args.y.dtype(), [&]<class T>() {
        using C = compute_t<T>;
        int64_t group = args.group;
        for_each_piece<T>(args.y, [&](int64_t row, int64_t start, int64_t n, C* out) {
            const T* x = at<T>(args.x, row, start * group);
            for (int64_t i = 0; i < n; ++i) {
                C sum = 0;
                for (int64_t j = 0; j < group; ++j) sum += static_cast<C>(x[i * group + j]);
                out[i] = sum / static_cast<C>(group);
            }
        });
    });
}

}  // namespace sana::cpu
