// Softmax attention: cross-attention to text, the text encoder's causal one, the video decoder's single wide head.
#include <array>

#include "bench/case.h"
#include "bench/values.h"
#include "ops/attention.h"

namespace sana::cases {

namespace {

struct Sizes {
    int64_t batch, queries, keys, width;
};

// lengths: a sample keeps its first keys, the first sample one of them, the last one all.
enum class Mask { none, random, first_sample_empty, lengths };

// Inputs: q, k, v, mask.
Instance instance(const Sizes& s, AttentionOptions o, Mask mask = Mask::none, double sharpness = 1) {
    o.scale = static_cast<float>(sharpness / std::sqrt(static_cast<double>(s.width)));
    std::string name =
        join("B", s.batch, " N", s.queries, " L", s.keys, " A", o.heads, " E", o.kv_heads, " D", s.width,
             o.causal ? " causal" : "", mask == Mask::none ? "" : " mask",
             mask == Mask::first_sample_empty ? " empty" : "", mask == Mask::lengths ? " lengths" : "");
    if (o.window > 0) name += join(" window ", o.window);
    if (o.soft_cap > 0) name += join(" cap ", o.soft_cap);
    if (sharpness != 1) name += join(" scores of ", sharpness);
    return {
        .name = name,
        .inputs =
            [=](Generator& g) {
                Inputs in{strided(g.normal({s.batch, s.queries, o.heads * s.width})),
                          strided(g.normal({s.batch, s.keys, o.kv_heads * s.width})),
                          strided(g.normal({s.batch, s.keys, o.kv_heads * s.width})),
                          {}};
                if (mask != Mask::none) in[3] = g.mask({s.batch, s.keys}, 0.6);
                if (mask == Mask::first_sample_empty) {
                    for (int64_t j = 0; j < s.keys; ++j) in[3].value.data<int32_t>()[j] = 0;
                }
                if (mask == Mask::lengths) {
                    for (int64_t b = 0; b < s.batch; ++b) {
                        for (int64_t j = 0; j < s.keys; ++j)
                            in[3].value.data<int32_t>()[b * s.keys + j] = j * (s.batch - 1) <= b * s.keys;
                    }
                }
                return in;
            },
        .run = [=](const Tensors& in) { return Tensors{attention(in[0], in[1], in[2], in[3], o)}; },
        .reference =
            [=](const Tensors& in) {
                Values q(in[0]), k(in[1]), v(in[2]), keep(in[3]), y(in[0].shape());
                std::vector<double> score(static_cast<size_t>(s.keys));
                for (int64_t b = 0; b < s.batch; ++b) {
                    for (int64_t i = 0; i < s.queries; ++i) {
                        for (int64_t a = 0; a < o.heads; ++a) {
                            int64_t from = a * s.width, to = a / (o.heads / o.kv_heads) * s.width;
                            auto allowed = [&](int64_t j) {
                                return (!keep.defined() || keep(b, j) != 0) && (!o.causal || j <= i) &&
                                       (o.window == 0 || i - j < o.window);
                            };
                            double best = -INFINITY, total = 0;
                            for (int64_t j = 0; j < s.keys; ++j) {
                                double dot = 0;
                                for (int64_t d = 0; d < s.width; ++d)
                                    dot += q(b, i, from + d) * k(b, j, to + d);
                                dot *= static_cast<double>(o.scale);
                                double cap = o.soft_cap;
                                if (cap > 0) dot = cap * std::tanh(dot / cap);
                                score[static_cast<size_t>(j)] = dot;
                                if (allowed(j)) best = std::max(best, dot);
                            }
                            for (int64_t j = 0; j < s.keys; ++j) {
                                if (!allowed(j)) continue;
                                double p = std::exp(score[static_cast<size_t>(j)] - best);
                                total += p;
                                for (int64_t d = 0; d < s.width; ++d)
                                    y(b, i, from + d) += p * v(b, j, to + d);
                            }
                            if (total == 0) continue;
                            for (int64_t d = 0; d < s.width; ++d) y(b, i, from + d) /= total;
                        }
                    }
                }
                return Tensors{y.tensor()};
            },
        .flops = 4.0 * static_cast<double>(s.batch * o.heads * s.queries * s.keys * s.width) *
                 (o.causal ? 0.5 : 1.0),
    };
}

}  // namespace

std::vector<Case> attention_cases() {
    // fp32: an error of a few units in the last place of a score (up to 30 in size) is a relative error of its weight.
    Case out{.name = "attention", .bounds = {5e-6, kRoundBf16, kRoundF16}};
    out.tests = {
        instance({1, 1, 1, 1}, {}),
        instance({2, 7, 5, 3}, {.heads = 2, .kv_heads = 2}),
        instance({2, 33, 65, 112}, {.heads = 3, .kv_heads = 3}),
        instance({2, 70, 31, 16}, {.heads = 3, .kv_heads = 3}, Mask::random),
        instance({2, 9, 12, 8}, {.heads = 2, .kv_heads = 2}, Mask::first_sample_empty),
        instance({1, 37, 37, 16}, {.heads = 4, .kv_heads = 2, .causal = true}),
        instance({2, 40, 40, 16}, {.heads = 4, .kv_heads = 1, .causal = true, .window = 7}, Mask::random),
        instance({1, 40, 40, 16}, {.heads = 1, .kv_heads = 1, .window = 1}),
        instance({1, 50, 20, 8}, {.heads = 2, .kv_heads = 2, .causal = true}),  // more queries than keys
        instance({1, 50, 20, 8},
                 {.heads = 2, .kv_heads = 2, .causal = true, .window = 9}),     // late queries see none
        instance({1, 20, 50, 8}, {.heads = 2, .kv_heads = 2, .causal = true}),  // keys nobody sees
        instance({2, 45, 45, 256}, {.heads = 8, .kv_heads = 4, .soft_cap = 50, .causal = true, .window = 16},
                 Mask::random),
        instance({1, 33, 33, 16}, {.heads = 2, .kv_heads = 2, .soft_cap = 5}, Mask::none, 20),
        instance({2, 77, 77, 384}, {}),
        instance({1, 19, 23, 16}, {.heads = 2, .kv_heads = 2}, Mask::none,
                 30),  // exp() without a shift overflows
    };
    // Texts that a kernel may hold whole: around its tiles of 128 queries and 64 keys, its longest text, and beyond it.
    AttentionOptions two{.heads = 2, .kv_heads = 2};
    for (auto [batch, queries, keys, width] : {std::array{1, 130, 1, 112},
                                               {2, 63, 7, 112},
                                               {1, 257, 64, 112},
                                               {1, 65, 128, 112},
                                               {3, 129, 300, 112},
                                               {1, 40, 304, 112},
                                               {1, 40, 305, 112},
                                               {1, 20, 520, 112},
                                               {1, 129, 256, 128},
                                               {2, 20, 257, 128},
                                               {1, 200, 77, 64},
                                               {1, 65, 300, 64}})
        out.tests.push_back(instance({batch, queries, keys, width}, two));
    out.tests.push_back(instance({2, 131, 300, 112}, {.heads = 4, .kv_heads = 2}, Mask::random));
    for (Mask mask : {Mask::first_sample_empty, Mask::lengths})
        out.tests.push_back(instance({3, 70, 300, 112}, two, mask));
    out.tests.push_back(instance({2, 66, 120, 128}, two, Mask::first_sample_empty));
    out.tests.push_back(instance({1, 66, 300, 112}, two, Mask::none, 30));
    out.bench_cpu = {
        instance({1, 1560, 300, 112}, {.heads = 20, .kv_heads = 20}, Mask::random),
        instance({1, 300, 300, 256}, {.heads = 8, .kv_heads = 4, .soft_cap = 50, .causal = true}),
        instance({1, 1560, 1560, 384}, {})};
    out.bench_gpu = {
        instance({2, 32760, 300, 112}, {.heads = 20, .kv_heads = 20}, Mask::random),
        instance({2, 300, 300, 256}, {.heads = 8, .kv_heads = 4, .soft_cap = 50, .causal = true}),
        instance({4, 6240, 6240, 384}, {})};
    return {out};
}

}  // namespace sana::cases
