// Losses against central differences and plain formulas; optimiser steps against the formulas in double.
#include <gtest/gtest.h>

#include <cmath>

#include "../device.h"
#include "core/graph_cache.h"
#include "core/random.h"
#include "ops/gradients.h"

using namespace sana;

namespace {

std::vector<double> values(const Tensor& x) { return to_vector<double>(x.to(kCpu)); }

Tensor noise(const Shape& shape, uint64_t stream) { return on_test_device(randn_philox(shape, 3, stream)); }

// Single fp32 steps of a few operations each.
constexpr double kStep = 1e-5;

// Of orthogonalise() in relative L2. fp32: an emulation in fp64 with rounded factors gives up to 4e-7 for normal matrices.
// CUDA: with fp16 factors the same emulation gives 1.1e-3 to 2.1e-3 for the matrices here, and the library's order of
// adding is not the emulation's.
double orthogonal_bound() { return test_device() == kCpu ? 2e-6 : 1e-2; }

using Line = std::vector<double>;

// a [n,k] b [k,m]
Line times(const Line& a, const Line& b, size_t n, size_t k, size_t m) {
    Line y(n * m, 0.0);
    for (size_t i = 0; i < n; ++i) {
        for (size_t j = 0; j < k; ++j) {
            for (size_t l = 0; l < m; ++l) y[i * m + l] += a[i * k + j] * b[j * m + l];
        }
    }
    return y;
}

Line transposed(const Line& a, size_t n, size_t m) {
    Line y(n * m);
    for (size_t i = 0; i < n * m; ++i) y[i % m * n + i / m] = a[i];
    return y;
}

// The formulas of orthogonalise() for one matrix, always from the left.
Line orthogonal(Line x, size_t n, size_t m) {
    double squares = 0;
    for (double v : x) squares += v * v;
    for (double& v : x) v /= std::sqrt(squares) + 1e-7;
    for (int step = 0; step < 5; ++step) {
        Line A = times(x, transposed(x, n, m), n, m, n), AA = times(A, A, n, n, n);
        for (size_t i = 0; i < A.size(); ++i) A[i] = -4.7750 * A[i] + 2.0315 * AA[i];
        Line Px = times(A, x, n, n, m);
        for (size_t i = 0; i < x.size(); ++i) x[i] = 3.4445 * x[i] + Px[i];
    }
    return x;
}

// Of every matrix of x [B,n,m].
Tensor orthogonal(const Tensor& x) {
    Line all;
    for (int64_t b = 0; b < x.dim(0); ++b) {
        Line y = orthogonal(values(x.select(b)), size_t(x.dim(1)), size_t(x.dim(2)));
        all.insert(all.end(), y.begin(), y.end());
    }
    return from_vector(all, x.shape());
}

// Singular values of a [n,m], n <= m: rows are turned against each other (Jacobi) until all are orthogonal.
Line singular_values(Line a, size_t n, size_t m) {
    auto dot = [&](size_t i, size_t j) {
        double sum = 0;
        for (size_t k = 0; k < m; ++k) sum += a[i * m + k] * a[j * m + k];
        return sum;
    };
    for (int sweep = 0; sweep < 30; ++sweep) {
        for (size_t i = 0; i < n; ++i) {
            for (size_t j = i + 1; j < n; ++j) {
                double angle = std::atan2(2 * dot(i, j), dot(i, i) - dot(j, j)) / 2;
                double c = std::cos(angle), s = std::sin(angle);
                for (size_t k = 0; k < m; ++k) {
                    double p = a[i * m + k], q = a[j * m + k];
                    a[i * m + k] = c * p + s * q;
                    a[j * m + k] = c * q - s * p;
                }
            }
        }
    }
    Line out;
    for (size_t i = 0; i < n; ++i) out.push_back(std::sqrt(dot(i, i)));
    return out;
}

}  // namespace

TEST(Loss, Difference) {
    Tensor x = noise({2, 3, 4}, 1), target = noise({2, 3, 4}, 2),
           weight = on_test_device(from_vector<float>({0.5f, 0, 1, 2, 0.25f, 3}, {6}));
    std::vector<double> a = values(x), b = values(target), w = values(weight);
    for (LossKind kind : {LossKind::squared, LossKind::absolute}) {
        Tape tape;
        tape.require(x);
        Tensor loss = combine({{2, difference_loss(x, target, kind, weight)}});
        double expected = 0;
        for (size_t i = 0; i < a.size(); ++i) {
            double d = a[i] - b[i];
            expected += 2 * w[i / 4] * (kind == LossKind::squared ? d * d : std::abs(d));
        }
        EXPECT_NEAR(item(loss), expected, 1e-5 * expected);
        tape.backward(loss, full({1}, 1, DType::F32, test_device()));
        std::vector<double> g = values(tape.gradient(x));
        for (size_t i = 0; i < a.size(); ++i) {
            double d = a[i] - b[i];
            EXPECT_NEAR(g[i], 2 * w[i / 4] * (kind == LossKind::squared ? 2 * d : (d > 0 ? 1 : -1)), 1e-5);
        }
    }
    double mean = 0;
    for (size_t i = 0; i < a.size(); ++i)
        mean += (a[i] - b[i]) * (a[i] - b[i]) / static_cast<double>(a.size());
    EXPECT_NEAR(item(difference_loss(x, target, LossKind::squared)), mean, 1e-5 * mean);
}

TEST(Loss, NotANumberIsKept) {
    Tensor x = on_test_device(from_vector<float>({1, NAN, 2}, {3})),
           zero = zeros({3}, DType::F32, test_device());
    for (LossKind kind : {LossKind::squared, LossKind::absolute})
        EXPECT_TRUE(std::isnan(item(difference_loss(x, zero, kind))));
    EXPECT_FALSE(std::isfinite(square_sum(x)));
}

TEST(Loss, PosteriorOfAnAutoencoder) {
    Tensor mean = noise({3, 5}, 1), logvar = noise({3, 5}, 2), eps = noise({3, 5}, 3),
           goal = noise({3, 5}, 4);
    Tape tape;
    tape.require(mean);
    tape.require(logvar);
    Tensor z = gaussian_sample(mean, logvar, eps);
    Tensor loss = add(kl_loss(mean, logvar, 0.1), difference_loss(z, goal, LossKind::squared));
    tape.backward(loss, full({1}, 1, DType::F32, test_device()));
    std::vector<double> m = values(mean), l = values(logvar), e = values(eps), t = values(goal),
                        dm = values(tape.gradient(mean)), dl = values(tape.gradient(logvar));
    double expected = 0, n = static_cast<double>(m.size());
    for (size_t i = 0; i < m.size(); ++i) {
        double sigma = std::exp(l[i] / 2), d = m[i] + sigma * e[i] - t[i];
        expected += 0.05 * (m[i] * m[i] + std::exp(l[i]) - 1 - l[i]) + d * d / n;
        EXPECT_NEAR(dm[i], 0.1 * m[i] + 2 * d / n, 1e-5);
        EXPECT_NEAR(dl[i], 0.05 * (std::exp(l[i]) - 1) + 2 * d / n * sigma * e[i] / 2, 1e-5);
    }
    EXPECT_NEAR(item(loss), expected, 1e-5 * std::abs(expected));
}

TEST(Optim, SquareSum) {
    Tensor x = noise({12345}, 1);
    double expected = 0;
    for (double v : values(x)) expected += v * v;
    EXPECT_NEAR(square_sum(x), expected, 1e-6 * expected);
}

TEST(Optim, AdamW) {
    Tensor w = noise({1000}, 1), m = zeros({1000}, DType::F32, test_device()),
           v = zeros({1000}, DType::F32, test_device()), copy_of_w = zeros({1000}, DType::F32, test_device());
    std::vector<double> ew = values(w), em(1000, 0.0), ev(1000, 0.0);
    for (int64_t step = 1; step <= 5; ++step) {
        Tensor gradient = noise({1000}, static_cast<uint64_t>(10 + step));
        AdamWOptions o{.rate = 0.01, .epsilon = 1e-8, .decay = 0.1, .step = step, .factor = 0.5};
        adamw(o, gradient, w, m, v, copy_of_w);
        std::vector<double> g = values(gradient);
        for (size_t i = 0; i < g.size(); ++i) {
            em[i] = o.beta1 * em[i] + (1 - o.beta1) * o.factor * g[i];
            ev[i] = o.beta2 * ev[i] + (1 - o.beta2) * o.factor * g[i] * o.factor * g[i];
            double mh = em[i] / (1 - std::pow(o.beta1, step)), vh = ev[i] / (1 - std::pow(o.beta2, step));
            ew[i] -= o.rate * (mh / (std::sqrt(vh) + o.epsilon) + o.decay * ew[i]);
        }
    }
    EXPECT_LE(relative_l2(w.to(kCpu), from_vector(ew, {1000})), kStep);
    EXPECT_EQ(max_abs_difference(w.to(kCpu), copy_of_w.to(kCpu)), 0);
}

TEST(Optim, Came) {
    constexpr int64_t kRows = 6, kCols = 9, kCount = kRows * kCols;
    auto zero = [](int64_t n) { return zeros({n}, DType::F32, test_device()); };
    for (bool factored : {true, false}) {
        SCOPED_TRACE(factored ? "matrix" : "vector");
        Tensor w = noise({kCount}, 1);
        CameState state{zero(kCount), {}, zero(factored ? kCols : kCount), {}, {}};
        if (factored) {
            state.rows = zero(kRows);
            state.doubt_rows = zero(kRows);
            state.doubt_columns = zero(kCols);
        }
        Line ew = values(w), m(kCount, 0.0), rows(kRows, 0.0), cols(kCols, 0.0), doubt_rows = rows,
             doubt_cols = cols, full(kCount, 0.0);
        CameOptions o{.rate = 0.01, .decay = 0.1, .factor = 2};
        for (uint64_t step = 1; step <= 4; ++step) {
            Tensor gradient = noise({kCount}, 20 + step);
            came(o, gradient, w, state, {});
            Line g = values(gradient), u(kCount);
            for (double& x : g) x *= o.factor;
            auto merge = [&](Line& r, Line& c, double beta, auto f) {
                Line rs(kRows, 0.0), cs(kCols, 0.0);
                for (int64_t i = 0; i < kCount; ++i) {
                    rs[size_t(i / kCols)] += f(size_t(i)) / kCols;
                    cs[size_t(i % kCols)] += f(size_t(i)) / kRows;
                }
                for (size_t i = 0; i < rs.size(); ++i) r[i] = beta * r[i] + (1 - beta) * rs[i];
                for (size_t i = 0; i < cs.size(); ++i) c[i] = beta * c[i] + (1 - beta) * cs[i];
            };
            auto divided = [&](double x, const Line& r, const Line& c, int64_t i) {
                double mean = 0;
                for (double v : r) mean += v / kRows;
                return x / std::sqrt(r[size_t(i / kCols)] / mean) / std::sqrt(c[size_t(i % kCols)]);
            };
            if (factored) merge(rows, cols, o.beta2, [&](size_t i) { return g[i] * g[i] + o.epsilon1; });
            double squares = 0;
            for (int64_t i = 0; i < kCount; ++i) {
                size_t at = size_t(i);
                full[at] = o.beta2 * full[at] + (1 - o.beta2) * (g[at] * g[at] + o.epsilon1);
                u[at] = factored ? divided(g[at], rows, cols, i) : g[at] / std::sqrt(full[at]);
                squares += u[at] * u[at];
            }
            for (size_t i = 0; i < u.size(); ++i) {
                u[i] /= std::max(1.0, std::sqrt(squares / kCount) / o.clip);
                m[i] = o.beta1 * m[i] + (1 - o.beta1) * u[i];
            }
            if (factored)
                merge(doubt_rows, doubt_cols, o.beta3,
                      [&](size_t i) { return (u[i] - m[i]) * (u[i] - m[i]) + o.epsilon2; });
            for (int64_t i = 0; i < kCount; ++i) {
                double step_i = factored ? divided(m[size_t(i)], doubt_rows, doubt_cols, i) : m[size_t(i)];
                ew[size_t(i)] -= o.rate * (step_i + o.decay * ew[size_t(i)]);
            }
        }
        EXPECT_LE(relative_l2(w.to(kCpu), from_vector(ew, {kCount})), 5 * kStep);
    }
}

TEST(Optim, OrthogonaliseFollowsTheFormula) {
    for (const Shape& shape : {Shape{1, 1, 1}, Shape{1, 24, 24}, Shape{3, 20, 45}, Shape{2, 33, 17},
                               Shape{2, 16, 80}, Shape{5, 96, 32}, Shape{1, 7, 3}}) {
        SCOPED_TRACE(join(shape));
        Tensor x = noise(shape, 1), y = orthogonalise(x);
        EXPECT_LE(relative_l2(y.to(kCpu), orthogonal(x)), orthogonal_bound());
        EXPECT_EQ(max_abs_difference(orthogonalise(x).to(kCpu), y.to(kCpu)), 0) << "the second time";
        // fp64 throughout; 1e-15 and sums of up to 96, raised up to 480 times.
        Tensor wide = x.to(kCpu).to(DType::F64);
        EXPECT_LE(relative_l2(orthogonalise(wide), orthogonal(x)), 1e-11);
    }
}

// Matrices of one call have nothing to do with each other, whatever their sizes; nothing comes of nothing.
TEST(Optim, OrthogonaliseTakesEachMatrixAlone) {
    Tensor x = noise({3, 32, 48}, 1);
    Tensor parts[] = {combine({{1e-3, x.outer_slice(0, 1)}}), zeros({1, 32, 48}, DType::F32, test_device()),
                      combine({{1e4, x.outer_slice(2, 1)}})};
    Tensor y = orthogonalise(concat({parts[0], parts[1], parts[2]}, 0)).to(kCpu);
    EXPECT_EQ(square_sum(y.outer_slice(1, 1)), 0);
    for (int64_t b : {0, 2})
        EXPECT_LE(relative_l2(y.outer_slice(b, 1), orthogonal(parts[b])), orthogonal_bound());
}

// Nothing is read back on the way, and a recording gives the same bits.
TEST(Optim, OrthogonaliseCanBeRecorded) {
    GraphCache graphs(test_device());
    auto f = [](const std::vector<Tensor>& in) { return orthogonalise(in[0]); };
    for (uint64_t i = 0; i < 4; ++i) {
        Tensor x = noise({4, 32, 48}, 40 + i), y = graphs.run("stack", {x}, f);
        EXPECT_EQ(max_abs_difference(y.to(kCpu), f({x}).to(kCpu)), 0) << i;
    }
    EXPECT_EQ(graphs.recorded(), test_device() == kCpu ? 0 : 1);
}

// With singular values of 2.9 to 10.9, 0.1 to 0.4 of the norm, all come near 1: the polynomial's own spread is 0.68 to
// 1.13, and the bound leaves it some rounding.
TEST(Optim, OrthogonaliseBringsSingularValuesNearOne) {
    for (auto [n, m] : {std::pair<int64_t, int64_t>{16, 48}, {48, 16}}) {
        Tensor y = orthogonalise(noise({2, n, m}, 3)).to(kCpu);
        for (int64_t b = 0; b < 2; ++b) {
            Line a = values(y.select(b));
            if (n > m) a = transposed(a, size_t(n), size_t(m));
            for (double value : singular_values(a, 16, 48)) {
                EXPECT_GT(value, 0.6);
                EXPECT_LT(value, 1.3);
            }
        }
    }
}

TEST(Optim, Muon) {
    for (const Shape& shape : {Shape{2, 20, 45}, Shape{3, 40, 16}}) {
        SCOPED_TRACE(join(shape));
        Tensor w = noise(shape, 1), before = w.to(kCpu).clone(), m = zeros(shape, DType::F32, test_device()),
               copy_of_w = zeros(shape, DType::F32, test_device());
        Line ew = values(w), em(ew.size(), 0.0);
        MuonOptions o{.rate = 0.01, .decay = 0.1, .factor = 0.5};
        double scale = 0.2 * std::sqrt(static_cast<double>(std::max(shape[1], shape[2])));
        for (uint64_t step = 1; step <= 4; ++step) {
            Tensor gradient = noise(shape, 10 + step);
            muon(o, gradient, w, m, copy_of_w);
            Line u = values(gradient);
            for (size_t i = 0; i < u.size(); ++i) {
                em[i] = o.beta * em[i] + o.factor * u[i];
                u[i] = o.factor * u[i] + o.beta * em[i];
            }
            Line O = values(orthogonal(from_vector(u, shape)));
            for (size_t i = 0; i < u.size(); ++i) ew[i] -= o.rate * (scale * O[i] + o.decay * ew[i]);
        }
        Tensor moved = combine({{1, w.to(kCpu)}, {-1, before}}),
               expected = combine({{1, from_vector(ew, shape).to(DType::F32)}, {-1, before}});
        // Weights of 1 moved by 0.02: fp32 keeps 3e-6 of that.
        EXPECT_LE(relative_l2(moved, expected), orthogonal_bound() + kStep);
        EXPECT_LE(relative_l2(m.to(kCpu), from_vector(em, shape)), kStep);
        EXPECT_EQ(max_abs_difference(w.to(kCpu), copy_of_w.to(kCpu)), 0);
    }
}

TEST(Optim, Average) {
    Tensor w = noise({100}, 1), average = noise({100}, 2);
    std::vector<double> a = values(average), b = values(w);
    average_step(0.9, w, average);
    for (size_t i = 0; i < a.size(); ++i) a[i] += 0.1 * (b[i] - a[i]);
    EXPECT_LE(relative_l2(average.to(kCpu), from_vector(a, {100})), 1e-6);
}
