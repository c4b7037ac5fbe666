// Linear attention with and without a state; results are y and, where a state is asked for, its two sums.
#include "bench/case.h"
#include "bench/values.h"
#include "ops/layout.h"
#include "ops/linear_attention_fp8.h"

namespace sana::cases {

namespace {

struct Sizes {
    int64_t batch, heads, width;
    Grid grid;
};

enum class State { none, total, past_and_total };
// y as it is; as the values of its codes; codes that are not read again, for timing.
enum class Result { dense, codes, only_codes };

struct Normalised {
    Values plain, rotated;
};

// relu(rms_norm(x)) and its rotation of adjacent pairs, both [B,N,C].
Normalised features(const Tensor& x, const Tensor& weight, const Tensor& cos, const Tensor& sin,
                    int64_t width, double eps) {
    Values in(x), w(weight), cosine(cos), sine(sin);
    Normalised out{Values(x.shape()), Values(x.shape())};
    int64_t channels = x.dim(2);
    for (int64_t b = 0; b < x.dim(0); ++b) {
        for (int64_t n = 0; n < x.dim(1); ++n) {
            double squares = 0;
            for (int64_t c = 0; c < channels; ++c) squares += in(b, n, c) * in(b, n, c);
            double r = 1 / std::sqrt(squares / static_cast<double>(channels) + eps);
            for (int64_t c = 0; c < channels; ++c) out.plain(b, n, c) = std::max(0.0, in(b, n, c) * r * w(c));
            for (int64_t c = 0; c < channels; c += 2) {
                double even = out.plain(b, n, c), odd = out.plain(b, n, c + 1);
                int64_t j = c % width / 2;
                out.rotated(b, n, c) = even * cosine(n, j) - odd * sine(n, j);
                out.rotated(b, n, c + 1) = even * sine(n, j) + odd * cosine(n, j);
            }
        }
    }
    return out;
}

Tensors formula(const Sizes& s, const LinearAttentionOptions& o, State state, const Tensors& in) {
    int64_t tokens = s.grid.tokens(), width = s.width;
    Normalised q = features(in[0], in[3], in[5], in[6], width, o.norm_eps);
    Normalised k = features(in[1], in[4], in[5], in[6], width, o.norm_eps);
    Values v(in[2]), y(in[0].shape()), kv(Shape{s.batch, s.heads, width, width}),
        k_sum(Shape{s.batch, s.heads, width});
    if (state == State::past_and_total) {
        kv = Values(in[7]);
        k_sum = Values(in[8]);
    }
    for (int64_t b = 0; b < s.batch; ++b) {
        for (int64_t a = 0; a < s.heads; ++a) {
            int64_t first = a * width;
            for (int64_t n = 0; n < tokens; ++n) {
                for (int64_t i = 0; i < width; ++i) {
                    k_sum(b, a, i) += k.plain(b, n, first + i);
                    for (int64_t j = 0; j < width; ++j) {
                        kv(b, a, i, j) += v(b, n, first + i) * k.rotated(b, n, first + j);
                    }
                }
            }
            for (int64_t n = 0; n < tokens; ++n) {
                double normaliser = o.eps;
                for (int64_t i = 0; i < width; ++i) normaliser += q.plain(b, n, first + i) * k_sum(b, a, i);
                for (int64_t i = 0; i < width; ++i) {
                    double sum = 0;
                    for (int64_t j = 0; j < width; ++j) sum += kv(b, a, i, j) * q.rotated(b, n, first + j);
                    y(b, n, first + i) = sum / normaliser;
                }
            }
        }
    }
    if (state == State::none) return {y.tensor()};
    return {y.tensor(), kv.tensor(), k_sum.tensor()};
}

// Inputs: q, k, v, q_norm, k_norm, cos, sin, past kv, past k_sum.
// fused: q, k and v are columns of one tensor, as a model has them.
Instance instance(const Sizes& s, State state, bool zero_queries = false, bool fused = false,
                  Result result = Result::dense) {
    int64_t tokens = s.grid.tokens(), channels = s.heads * s.width;
    LinearAttentionOptions options;
    options.heads = s.heads;
    return {
        .name =
            join("B", s.batch, " N", tokens, " A", s.heads, " D", s.width,
                 state == State::total ? " total" : "", state == State::past_and_total ? " past, total" : "",
                 zero_queries ? " zero queries" : "", fused ? " fused" : ""),
        .inputs =
            [=](Generator& g) {
                Rope rope = rope_3d(s.grid, s.width, 10000, 3, kCpu);
                Shape shape{s.batch, tokens, channels};
                Inputs in{strided(g.normal(shape, zero_queries ? 0 : 1)),
                          strided(g.normal(shape)),
                          strided(g.normal(shape)),
                          g.normal({channels}, 0.3, 1),
                          g.normal({channels}, 0.3, 1),
                          fixed(rope.cos),
                          fixed(rope.sin),
                          {},
                          {}};
                if (state == State::past_and_total) {
                    in[7] = sums(g.normal({s.batch, s.heads, s.width, s.width}, 5));
                    in[8] = sums(g.uniform({s.batch, s.heads, s.width}, 1, 20));
                }
                return in;
            },
        .run =
            [=](const Tensors& in) {
                LinearState past{in[7], in[8]}, total;
                LinearAttentionOptions o = options;
                o.q_norm = in[3];
                o.k_norm = in[4];
                o.rope = {in[5], in[6]};
                if (state == State::past_and_total) o.past = &past;
                if (state != State::none) o.total = &total;
                Tensor all = fused ? concat({in[0], in[1], in[2]}, -1) : Tensor();
                auto part = [&](int64_t i) { return fused ? all.cols_slice(i * channels, channels) : in[i]; };
                if (result == Result::only_codes) {
                    Fp8 y = linear_attention_fp8(part(0), part(1), part(2), o);
                    return Tensors{y.codes, y.scale};
                }
                Tensor y = result == Result::dense
                               ? linear_attention(part(0), part(1), part(2), o)
                               : dequantise(linear_attention_fp8(part(0), part(1), part(2), o),
                                            in[0].dtype() == DType::F64 ? DType::F64 : DType::F32);
                return state == State::none ? Tensors{y} : Tensors{y, total.kv, total.k_sum};
            },
        .reference =
            [=](const Tensors& in) {
                Tensors out = formula(s, options, state, in);
                if (result != Result::dense) out[0] = dequantise(quantise(out[0]), DType::F64);
                return out;
            },
        .flops = 4.0 * static_cast<double>(s.batch * tokens * channels * s.width),
    };
}

}  // namespace

std::vector<Case> linear_attention_cases() {
    // fp32: S sums values of both signs over all tokens, and the rotation may cancel in S q~. The normaliser is a sum of
    // positive numbers.
    Case out{.name = "linear_attention", .bounds = {3e-6, kRoundBf16, kRoundF16}};
    out.tests = {
        instance({1, 1, 6, {1, 1, 1}}, State::none),
        instance({2, 3, 8, {3, 5, 7}}, State::total),
        instance({2, 3, 8, {3, 5, 7}}, State::past_and_total),
        instance({1, 2, 112, {2, 6, 11}}, State::past_and_total),
        instance({1, 1, 16, {1, 8, 8}}, State::none),
        instance({1, 1, 16, {1, 5, 13}}, State::total),
        instance({1, 2, 8, {1, 2, 2}}, State::none, true),  // 0 / eps, not 0 / 0
        instance({2, 3, 112, {2, 5, 7}}, State::none, false, true),
        instance({1, 9, 32, {1, 9, 33}}, State::total, false, true),
    };
    out.bench_cpu = {instance({1, 20, 112, {1, 30, 52}}, State::none),
                     instance({1, 20, 112, {1, 30, 52}}, State::past_and_total)};
    out.bench_gpu = {instance({2, 20, 112, {21, 30, 52}}, State::none),
                     instance({1, 20, 112, {3, 30, 52}}, State::past_and_total)};

    // Results are rounded before they are quantised: in bf16 one of sixteen then lies in the middle of two codes, and may go
    // either way (0.017). How near the codes are to quantise(linear_attention()): tests/ops/fp8_test.cpp.
    Case codes{.name = "linear_attention_fp8", .bounds = {2e-2, 2e-2, 2e-2, 10}};
    auto to_codes = [](const Sizes& s, State state = State::none) {
        return instance(s, state, false, true, Result::codes);
    };
    codes.tests = {to_codes({2, 3, 8, {3, 5, 7}}, State::total),
                   to_codes({1, 2, 112, {2, 6, 11}}, State::past_and_total),
                   to_codes({2, 20, 112, {2, 5, 7}}),
                   to_codes({1, 7, 112, {1, 8, 8}}),
                   to_codes({1, 1, 112, {1, 9, 29}}),
                   to_codes({1, 9, 32, {1, 9, 33}}),
                   to_codes({1, 24, 112, {1, 2, 9}})};
    codes.bench_cpu = {instance({1, 20, 112, {1, 30, 52}}, State::none, false, true, Result::only_codes)};
    codes.bench_gpu = {instance({2, 20, 112, {21, 30, 52}}, State::none, false, true, Result::only_codes)};
    return {out, codes};
}

}  // namespace sana::cases
