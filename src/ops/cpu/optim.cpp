// Losses and optimiser steps on the CPU. Sums run over fixed parts, so that results do not depend on threads.
#include "ops/optim.h"

#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "ops/cpu/gradients.h"
#include "ops/loss.h"

namespace sana::cpu {

namespace {

constexpr int64_t kPart = 4096;

// The sum of f(begin, end) over parts of [0, count).
template <class F>
double sum_parts(int64_t count, F f) {
    int64_t parts = (count + kPart - 1) / kPart;
    std::vector<double> sums(static_cast<size_t>(parts));
    parallel_for(parts, kPart * 4, [&](int64_t p) {
        sums[static_cast<size_t>(p)] = f(p * kPart, std::min(count, (p + 1) * kPart));
    });
    double total = 0;
    for (double sum : sums) total += sum;
    return total;
}

template <class F>
void for_parts(int64_t count, F f) {
    int64_t parts = (count + kPart - 1) / kPart;
    parallel_for(parts, kPart * 8, [&](int64_t p) { f(p * kPart, std::min(count, (p + 1) * kPart)); });
}

template <class T>
void store_scalar(Tensor& value, T x) {
    value.dtype() == DType::F64 ? void(*value.data<double>() = static_cast<double>(x))
                                : void(*value.data<float>() = static_cast<float>(x));
}

}  // namespace

void difference_loss(const DifferenceLossArgs& args) {
    dispatch_fp32_fp64("difference_loss", args.x.dtype(), [&]<class T>() {
        const T* x = args.x.data<T>();
        int64_t count = args.x.numel(), groups = args.weight.defined() ? args.weight.numel() : 1;
        const float* weight = args.weight.defined() ? args.weight.data<float>() : nullptr;
        Tensor wide = args.target.to(args.x.dtype());
        const T* target = wide.data<T>();
        T* dx = args.dx.data<T>();
        double total = sum_parts(count, [&](int64_t begin, int64_t end) {
            double sum = 0;
            for (int64_t i = begin; i < end; ++i) {
                T w = weight == nullptr ? T(1) / static_cast<T>(count)
                                        : static_cast<T>(weight[i / (count / groups)]);
                T d = x[i] - target[i];
                bool squared = args.kind == LossKind::squared;
                sum += static_cast<double>(w) * static_cast<double>(squared ? d * d : std::abs(d));
                dx[i] = squared ? 2 * w * d : (d > 0 ? w : (d < 0 ? -w : w * d));  // keeps NaN
            }
            return sum;
        });
        store_scalar(args.value, total);
    });
}

void kl_loss(const KlLossArgs& args) {
    dispatch_fp32_fp64("kl_loss", args.mean.dtype(), [&]<class T>() {
        const T *mean = args.mean.data<T>(), *logvar = args.logvar.data<T>();
        double total = sum_parts(args.mean.numel(), [&](int64_t begin, int64_t end) {
            double sum = 0;
            for (int64_t i = begin; i < end; ++i) {
                T variance = std::exp(logvar[i]);
                sum += static_cast<double>(mean[i] * mean[i] + variance - 1 - logvar[i]) / 2;
                args.dmean.data<T>()[i] = static_cast<T>(args.factor) * mean[i];
                args.dlogvar.data<T>()[i] = static_cast<T>(args.factor) * (variance - 1) / 2;
            }
            return sum;
        });
        store_scalar(args.value, args.factor * total);
    });
}

void gaussian_sample(const GaussianSampleArgs& args) {
    dispatch_fp32_fp64("gaussian_sample", args.y.dtype(), [&]<class T>() {
        for_parts(args.y.numel(), [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                args.y.data<T>()[i] =
                    args.mean.data<T>()[i] + std::exp(args.logvar.data<T>()[i] / 2) * args.noise.data<T>()[i];
            }
        });
    });
}

void gaussian_sample_grad(const GaussianSampleGradArgs& args) {
    dispatch_fp32_fp64("gaussian_sample", args.dy.dtype(), [&]<class T>() {
        for_parts(args.dy.numel(), [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                args.dlogvar.data<T>()[i] = args.dy.data<T>()[i] * args.noise.data<T>()[i] *
                                            std::exp(args.logvar.data<T>()[i] / 2) / 2;
            }
        });
    });
}

void square_sum(const SquareSumArgs& args) {
    dispatch_fp32_fp64("square_sum", args.x.dtype(), [&]<class T>() {
        const T* x = args.x.data<T>();
        args.partial.data<double>()[0] = sum_parts(args.x.numel(), [&](int64_t begin, int64_t end) {
            double sum = 0;
            for (int64_t i = begin; i < end; ++i)
                sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
            return sum;
        });
    });
}

void adamw(const AdamWArgs& args) {
    check(args.gradient.dtype() == DType::F32, "adamw: gradients on the CPU are fp32, not ",
          args.gradient.dtype());
    const AdamWOptions& o = args.options;
    float b1 = static_cast<float>(o.beta1), b2 = static_cast<float>(o.beta2),
          eps = static_cast<float>(o.epsilon);
    float rate = static_cast<float>(o.rate), decay = static_cast<float>(o.decay),
          factor = static_cast<float>(o.factor);
    float first = static_cast<float>(1 / (1 - std::pow(o.beta1, static_cast<double>(o.step))));
    float second = static_cast<float>(1 / (1 - std::pow(o.beta2, static_cast<double>(o.step))));
    const float* gradient = args.gradient.data<float>();
    float *w = args.weights.data<float>(), *m = args.m.data<float>(), *v = args.v.data<float>();
    float* copy = args.copy.defined() ? args.copy.data<float>() : nullptr;
    for_parts(args.weights.numel(), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            float g = factor * gradient[i];
            m[i] = b1 * m[i] + (1 - b1) * g;
            v[i] = b2 * v[i] + (1 - b2) * g * g;
            w[i] -= rate * (m[i] * first / (std::sqrt(v[i] * second) + eps) + decay * w[i]);
            if (copy != nullptr) copy[i] = w[i];
        }
    });
}

namespace {

// Averages of f(r, c) over rows and columns, merged into rows and columns with weight 1 - beta.
template <class F>
void merge_means(int64_t rows, int64_t cols, double beta, float* row_means, float* column_means, F f) {
    std::vector<double> sums(static_cast<size_t>(cols), 0.0);
    for (int64_t r = 0; r < rows; ++r) {
        double sum = 0;
        for (int64_t c = 0; c < cols; ++c) {
            double value = f(r, c);
            sum += value;
            sums[static_cast<size_t>(c)] += value;
        }
        row_means[r] = static_cast<float>(beta * row_means[r] + (1 - beta) * sum / static_cast<double>(cols));
    }
    for (int64_t c = 0; c < cols; ++c) {
        column_means[c] = static_cast<float>(
            beta * column_means[c] + (1 - beta) * sums[static_cast<size_t>(c)] / static_cast<double>(rows));
    }
}

double mean_of(const float* x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += x[i];
    return sum / static_cast<double>(n);
}

}  // namespace

void came(const CameArgs& args) {
    check(args.gradient.dtype() == DType::F32, "came: gradients on the CPU are fp32, not ",
          args.gradient.dtype());
    const CameOptions& o = args.options;
    CameState& s = args.state;
    bool factored = s.rows.defined();
    int64_t cols = s.columns.numel(), rows = args.weights.numel() / cols, count = args.weights.numel();
    const float* gradient = args.gradient.data<float>();
    float *w = args.weights.data<float>(), *m = s.m.data<float>(), *columns = s.columns.data<float>();
    auto g = [&](int64_t i) { return o.factor * static_cast<double>(gradient[i]); };
    std::vector<double> u(static_cast<size_t>(count));
    double squares = 0;
    if (factored) {
        float* row_means = s.rows.data<float>();
        merge_means(rows, cols, o.beta2, row_means, columns,
                    [&](int64_t r, int64_t c) { return g(r * cols + c) * g(r * cols + c) + o.epsilon1; });
        double mean = mean_of(row_means, rows);
        for (int64_t i = 0; i < count; ++i)
            u[static_cast<size_t>(i)] =
                g(i) / std::sqrt(row_means[i / cols] / mean) / std::sqrt(columns[i % cols]);
    } else {
        for (int64_t i = 0; i < count; ++i) {
            columns[i] =
                static_cast<float>(o.beta2 * columns[i] + (1 - o.beta2) * (g(i) * g(i) + o.epsilon1));
            u[static_cast<size_t>(i)] = g(i) / std::sqrt(columns[i]);
        }
    }
    for (double x : u) squares += x * x;
    double limit = std::max(1.0, std::sqrt(squares / static_cast<double>(count)) / o.clip);
    for (int64_t i = 0; i < count; ++i) {
        u[static_cast<size_t>(i)] /= limit;
        m[i] = static_cast<float>(o.beta1 * m[i] + (1 - o.beta1) * u[static_cast<size_t>(i)]);
    }
    std::vector<double> step(m, m + count);
    if (factored) {
        float *doubt_rows = s.doubt_rows.data<float>(), *doubt_columns = s.doubt_columns.data<float>();
        merge_means(rows, cols, o.beta3, doubt_rows, doubt_columns, [&](int64_t r, int64_t c) {
            double d = u[static_cast<size_t>(r * cols + c)] - m[r * cols + c];
            return d * d + o.epsilon2;
        });
        double mean = mean_of(doubt_rows, rows);
        for (int64_t i = 0; i < count; ++i)
            step[static_cast<size_t>(i)] /=
                std::sqrt(doubt_rows[i / cols] / mean) * std::sqrt(doubt_columns[i % cols]);
    }
    for (int64_t i = 0; i < count; ++i) {
        w[i] -= static_cast<float>(o.rate * (step[static_cast<size_t>(i)] + o.decay * w[i]));
        if (args.copy.defined()) args.copy.data<float>()[i] = w[i];
    }
}

void average_step(const AverageArgs& args) {
    float keep = static_cast<float>(args.rate);
    const float* w = args.weights.data<float>();
    float* average = args.average.data<float>();
    for_parts(args.weights.numel(), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) average[i] += (1 - keep) * (w[i] - average[i]);
    });
}

}  // namespace sana::cpu
