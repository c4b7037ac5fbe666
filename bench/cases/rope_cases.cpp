// rotate_half. The tables themselves are checked against their formula in tests/ops.
#include "bench/case.h"
#include "bench/values.h"
#include "ops/rope.h"

namespace sana::cases {

namespace {

Instance instance(int64_t batch, int64_t tokens, int64_t heads, int64_t width) {
    return {
        .name = join("B", batch, " N", tokens, " A", heads, " D", width),
        .inputs =
            [=](Generator& g) {
                Rope rope = rope_1d(tokens, width, 10000, kCpu);
                return Inputs{strided(g.normal({batch, tokens, heads * width})), fixed(rope.cos),
                              fixed(rope.sin)};
            },
        .run =
            [=](const Tensors& in) {
                return Tensors{rotate_half(in[0], {in[1], in[2]}, heads)};
            },
        .reference =
            [=](const Tensors& in) {
                Values x(in[0]), cosine(in[1]), sine(in[2]), y(in[0].shape());
                for (int64_t b = 0; b < batch; ++b) {
                    for (int64_t n = 0; n < tokens; ++n) {
                        for (int64_t c = 0; c < heads * width; ++c) {
                            int64_t d = c % width, half = width / 2, j = d % half;
                            double other = d < half ? -x(b, n, c + half) : x(b, n, c - half);
                            y(b, n, c) = x(b, n, c) * cosine(n, j) + other * sine(n, j);
                        }
                    }
                }
                return Tensors{y.tensor()};
            },
        .flops = 3.0 * static_cast<double>(batch * tokens * heads * width),
    };
}

}  // namespace

std::vector<Case> rope_cases() {
    // fp32: two products and a sum an element.
    Case out{.name = "rotate_half", .bounds = {2e-7, kRoundBf16, kRoundF16}};
    out.tests = {instance(1, 1, 1, 2), instance(2, 7, 3, 6), instance(1, 33, 8, 256), instance(3, 5, 1, 112)};
    out.bench_cpu = {instance(1, 300, 8, 256)};
    out.bench_gpu = {instance(2, 300, 8, 256)};
    return {out};
}

}  // namespace sana::cases
