// Muon on the CPU: one matrix after the other, its products on all threads.
#include <cmath>

#include "core/parallel.h"
#include "ops/cpu/gradients.h"
#include "ops/optim.h"

namespace sana::cpu {

namespace {

constexpr int64_t kPart = 4096;

template <class F>
void for_each(int64_t count, F f) {
    parallel_for((count + kPart - 1) / kPart, kPart * 4, [&](int64_t part) {
        for (int64_t i = part * kPart; i < std::min(count, (part + 1) * kPart); ++i) f(i);
    });
}

template <class T>
void normalise(const T* x, T* y, int64_t count) {
    double squares = 0;
    for (int64_t i = 0; i < count; ++i) squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    T scale = static_cast<T>(1 / (std::sqrt(squares) + kOrthogonaliseEpsilon));
    for (int64_t i = 0; i < count; ++i) y[i] = scale * x[i];
}

}  // namespace

// The polynomial is P X with P = a I + b A + c A^2, or X P for a tall X.
void orthogonalise(const OrthogonaliseArgs& args) {
    dispatch_fp32_fp64("orthogonalise", args.x.dtype(), [&]<class T>() {
        int64_t rows = args.x.dim(1), cols = args.x.dim(2), side = std::min(rows, cols);
        bool tall = rows > cols;
        Tensor A = empty({side, side}, args.x.dtype()), P = empty_like(A),
               next = empty({rows, cols}, args.x.dtype());
        for (int64_t b = 0; b < args.x.dim(0); ++b) {
            Tensor X = args.y.select(b);
            normalise(args.x.select(b).data<T>(), X.data<T>(), X.numel());
            for (int step = 0; step < kOrthogonaliseSteps; ++step) {
                product({X, X, tall, !tall, A});
                product({A, A, false, true, P});  // A is symmetric
                const T* a = A.data<T>();
                T* p = P.data<T>();
                for_each(side * side, [&](int64_t i) {
                    T unit = i % (side + 1) == 0 ? static_cast<T>(kOrthogonaliseA) : T(0);
                    p[i] = unit + static_cast<T>(kOrthogonaliseB) * a[i] +
                           static_cast<T>(kOrthogonaliseC) * p[i];
                });
                product({tall ? X : P, tall ? P : X, false, false, next});
                copy(next, X);
            }
        }
    });
}

void muon_moment(const MuonMomentArgs& args) {
    check(args.gradient.dtype() == DType::F32, "muon: gradients on the CPU are fp32, not ",
          args.gradient.dtype());
    float factor = static_cast<float>(args.options.factor), beta = static_cast<float>(args.options.beta);
    const float* gradient = args.gradient.data<float>();
    float *m = args.m.data<float>(), *update = args.update.data<float>();
    for_each(args.m.numel(), [&](int64_t i) {
        float g = factor * gradient[i];
        m[i] = beta * m[i] + g;
        update[i] = g + beta * m[i];
    });
}

void muon_step(const MuonStepArgs& args) {
    float rate = static_cast<float>(args.options.rate), decay = static_cast<float>(args.options.decay),
          scale = static_cast<float>(args.scale);
    const float* update = args.update.data<float>();
    float *w = args.weights.data<float>(), *copy = args.copy.defined() ? args.copy.data<float>() : nullptr;
    for_each(args.weights.numel(), [&](int64_t i) {
        w[i] -= rate * (scale * update[i] + decay * w[i]);
        if (copy != nullptr) copy[i] = w[i];
    });
}

}  // namespace sana::cpu
