// Per (sample, head): a pass over the tokens builds S^T and s, a second one applies them. Tokens go through in tiles of
// 64 whose normalised, rectified and rotated rows stay in L1. Row statistics over all heads come from a pass before.
#include "ops/linear_attention.h"

#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/microkernel.h"
#include "ops/cpu/simd.h"
#include "ops/linear_attention_fp8.h"

namespace sana::cpu {

namespace {

constexpr int64_t kTile = 64;

// 1 / sqrt(mean(x^2) + eps) of every row.
template <class T>
std::vector<compute_t<T>> row_scales(const Tensor& x, float eps) {
    using C = compute_t<T>;
    int64_t rows = x.rows(), cols = x.cols();
    std::vector<C> scales(static_cast<size_t>(rows));
    const T* p = x.data<T>();
    parallel_for(rows, cols, [&](int64_t r) {
        const T* row = p + r * x.row_stride();
        C sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < cols; ++c) sum += static_cast<C>(row[c]) * static_cast<C>(row[c]);
        scales[static_cast<size_t>(r)] = 1 / std::sqrt(sum / static_cast<C>(cols) + static_cast<C>(eps));
    });
    return scales;
}

template <class T>
struct Features {
    using C = compute_t<T>;
    const Tensor& x;
    const std::vector<C>& scales;
    const C* weight;  // of this head
    const Rope& rope;
    int64_t first_row, column, width;

    // plain[n] = relu(norm(x)), rotated[n] = its rotation, for n tokens from `start`.
    void fill(int64_t start, int64_t n, C* plain, C* rotated) const {
        const float* cosines = rope.cos.data<float>();
        const float* sines = rope.sin.data<float>();
        for (int64_t i = 0; i < n; ++i) {
            int64_t row = first_row + start + i;
            const T* in = x.data<T>() + row * x.row_stride() + column;
            C scale = scales[static_cast<size_t>(row)];
            C* p = plain + i * width;
            C* r = rotated + i * width;
#pragma omp simd
            for (int64_t d = 0; d < width; ++d) {
                C value = static_cast<C>(in[d]) * scale * weight[d];
                p[d] = value < 0 ? C(0) : value;  // NaN stays NaN
            }
            const float* cs = cosines + (start + i) * (width / 2);
            const float* sn = sines + (start + i) * (width / 2);
            for (int64_t j = 0; j < width / 2; ++j) {
                C c = static_cast<C>(cs[j]), s = static_cast<C>(sn[j]);
                r[2 * j] = p[2 * j] * c - p[2 * j + 1] * s;
                r[2 * j + 1] = p[2 * j] * s + p[2 * j + 1] * c;
            }
        }
    }
};

template <class T>
void run(const LinearAttentionArgs& args) {
    using C = compute_t<T>;
    const LinearAttentionOptions& o = args.options;
    int64_t batch = args.q.dim(0), tokens = args.q.dim(1), channels = args.q.dim(2);
    int64_t heads = o.heads, width = channels / heads;
    std::vector<C> q_scales = row_scales<T>(args.q, o.norm_eps), k_scales = row_scales<T>(args.k, o.norm_eps);
    std::vector<C> q_weight(static_cast<size_t>(channels)), k_weight(static_cast<size_t>(channels));
    to_compute(o.q_norm.data<T>(), q_weight.data(), channels);
    to_compute(o.k_norm.data<T>(), k_weight.data(), channels);

    parallel_for(batch * heads, tokens * width * width, [&](int64_t task) {
        int64_t b = task / heads, a = task % heads, column = a * width, first = b * tokens;
        Features<T> q{args.q, q_scales, q_weight.data() + column, o.rope, first, column, width};
        Features<T> k{args.k, k_scales, k_weight.data() + column, o.rope, first, column, width};
        auto buffer = [](int64_t n) { return std::vector<C>(static_cast<size_t>(n), C(0)); };
        std::vector<C> plain = buffer(kTile * width), rotated = buffer(kTile * width),
                       value = buffer(kTile * width);
        std::vector<C> state = buffer(width * width);  // [k~ channel][v channel]
        C* sum = args.k_sum.data<C>() + task * width;
        C* kv = args.kv.data<C>() + task * width * width;
        std::fill(sum, sum + width, C(0));

        for (int64_t start = 0; start < tokens; start += kTile) {
            int64_t n = std::min(kTile, tokens - start);
            k.fill(start, n, plain.data(), rotated.data());
            for (int64_t i = 0; i < n; ++i) {
                to_compute(args.v.data<T>() + (first + start + i) * args.v.row_stride() + column,
                           value.data() + i * width, width);
                const C* row = plain.data() + i * width;
#pragma omp simd
                for (int64_t d = 0; d < width; ++d) sum[d] += row[d];
            }
            small_gemm<C>(width, width, n, rotated.data(), 1, width, value.data(), width, state.data(),
                          width);
        }
        if (o.past != nullptr) {
            const C* past_kv = o.past->kv.data<C>() + task * width * width;
            const C* past_sum = o.past->k_sum.data<C>() + task * width;
            for (int64_t d = 0; d < width; ++d) sum[d] += past_sum[d];
            for (int64_t i = 0; i < width; ++i) {
                for (int64_t j = 0; j < width; ++j)
                    state[static_cast<size_t>(j * width + i)] += past_kv[i * width + j];
            }
        }
        for (int64_t i = 0; i < width; ++i) {
            for (int64_t j = 0; j < width; ++j) kv[i * width + j] = state[static_cast<size_t>(j * width + i)];
        }

        for (int64_t start = 0; start < tokens; start += kTile) {
            int64_t n = std::min(kTile, tokens - start);
            q.fill(start, n, plain.data(), rotated.data());
            std::fill(value.begin(), value.end(), C(0));
            small_gemm<C>(n, width, width, rotated.data(), width, 1, state.data(), width, value.data(),
                          width);
            for (int64_t i = 0; i < n; ++i) {
                const C* row = plain.data() + i * width;
                C* out = value.data() + i * width;
                C normaliser = 0;
#pragma omp simd reduction(+ : normaliser)
                for (int64_t d = 0; d < width; ++d) normaliser += row[d] * sum[d];
                C inverse = 1 / (normaliser + static_cast<C>(o.eps));
#pragma omp simd
                for (int64_t d = 0; d < width; ++d) out[d] *= inverse;
                from_compute(out, args.y.data<T>() + (first + start + i) * args.y.row_stride() + column,
                             width);
            }
        }
    });
}

}  // namespace

void linear_attention(const LinearAttentionArgs& args) {
    dispatch_float(args.q.dtype(), [&]<class T>() { run<T>(args); });
}

void linear_attention_fp8(const LinearAttentionFp8Args& args) {
    Tensor y = empty(args.q.shape(), args.q.dtype());
    linear_attention({args.q, args.k, args.v, args.options, args.kv, args.k_sum, y});
    quantise({y, args.y});
}

}  // namespace sana::cpu
