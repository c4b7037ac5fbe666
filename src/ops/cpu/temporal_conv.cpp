// Frame by frame, y[t] = x[t] + sum over the taps r that exist of x[t + r - 1] weight[:, r, :]^T; the taps accumulate in
// fp32 (fp64 for fp64) through the matrix product, whose rows are the positions of all frames at once.
#include <vector>

#include "core/parallel.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/simd.h"

namespace sana::cpu {

namespace {

// E: what the products read, C: what they sum in.
template <class E>
struct Views {
    const E* x;
    const E* past;
    const E* weight;
};

// sums [B,T,S,C] = the three taps.
template <class E, class C>
void taps(const TemporalConvArgs& args, const Views<E>& views, C* sums) {
    int64_t frames = args.x.dim(1), positions = args.x.dim(2), channels = args.x.dim(3);
    int64_t frame = positions * channels;
    auto tap = [&](int64_t r, int64_t rows, const E* from, C* to, bool accumulate) {
        if (rows == 0) return;
        const E* weight = views.weight + r * channels;
        if constexpr (std::is_same_v<E, bf16>) {
            gemm_bf16(rows, channels, channels, from, channels, weight, 3 * channels, to, channels,
                      accumulate);
        } else {
            gemm<E>(rows, channels, channels, from, channels, weight, 3 * channels, to, channels, accumulate);
        }
    };
    for (int64_t b = 0; b < args.x.dim(0); ++b) {
        const E* x = views.x + b * frames * frame;
        C* y = sums + b * frames * frame;
        tap(1, frames * positions, x, y, false);
        tap(0, (frames - 1) * positions, x, y + frame, true);
        tap(2, (frames - 1) * positions, x + frame, y, true);
        if (views.past != nullptr) tap(0, positions, views.past + b * frame, y, true);
    }
}

template <class T>
void finish(const TemporalConvArgs& args, const compute_t<T>* sums) {
    using C = compute_t<T>;
    int64_t tokens = args.x.dim(1) * args.x.dim(2), channels = args.x.dim(3), rows = args.x.rows();
    const Epilogue& out = args.out;
    int64_t groups = out.gate.defined() ? out.gate.dim(1) : 1;
#pragma omp parallel if (rows * channels > 1 << 14)
    {
        std::vector<C> row(static_cast<size_t>(channels));
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; ++r) {
            const T* x = args.x.data<T>() + r * channels;
            const C* sum = sums + r * channels;
            C* v = row.data();
#pragma omp simd
            for (int64_t i = 0; i < channels; ++i) v[i] = static_cast<C>(x[i]) + sum[i];
            if (out.gate.defined()) {
                int64_t group = r / tokens * groups + r % tokens / (tokens / groups);
                const T* gate = out.gate.data<T>() + group * out.gate.row_stride();
#pragma omp simd
                for (int64_t i = 0; i < channels; ++i) v[i] *= static_cast<C>(gate[i]);
            }
            if (out.residual.defined()) {
                const T* residual = out.residual.data<T>() + r * out.residual.row_stride();
#pragma omp simd
                for (int64_t i = 0; i < channels; ++i) v[i] += static_cast<C>(residual[i]);
            }
            from_compute(v, args.y.data<T>() + r * args.y.row_stride(), channels);
        }
    }
}

}  // namespace

void temporal_conv_of(const Tensor& product_x, const TemporalConvArgs& args) {
    dispatch_float(args.x.dtype(), [&]<class T>() {
        using C = compute_t<T>;
        using E = std::conditional_t<std::is_same_v<T, bf16>, bf16, C>;
        Tensor x = product_x.to(dtype_of<E>()), weight = args.weight.to(dtype_of<E>());
        Tensor past = args.past.defined() ? args.past.to(dtype_of<E>()) : Tensor();
        Tensor sums = empty(args.x.shape(), dtype_of<C>());
        taps<E, C>(args, {x.data<E>(), past.defined() ? past.data<E>() : nullptr, weight.data<E>()},
                   sums.data<C>());
        finish<T>(args, sums.data<C>());
    });
}

void temporal_conv(const TemporalConvArgs& args) { temporal_conv_of(args.x, args); }

}  // namespace sana::cpu
