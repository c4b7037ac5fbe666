// embedding and timestep_embedding.
#include "bench/case.h"
#include "bench/values.h"
#include "ops/embed.h"

namespace sana::cases {

namespace {

Instance lookup(int64_t batch, int64_t length, int64_t vocabulary, int64_t channels, float scale) {
    return {
        .name = join("B", batch, " L", length, " V", vocabulary, " C", channels, " scale ", scale),
        .inputs =
            [=](Generator& g) {
                return Inputs{g.ids({batch, length}, vocabulary), g.normal({vocabulary, channels})};
            },
        .run = [=](const Tensors& in) { return Tensors{embedding(in[0], in[1], scale)}; },
        .reference =
            [=](const Tensors& in) {
                Values ids(in[0]), table(in[1]), y(Shape{batch, length, channels});
                for (int64_t b = 0; b < batch; ++b) {
                    for (int64_t l = 0; l < length; ++l) {
                        for (int64_t c = 0; c < channels; ++c) {
                            y(b, l, c) =
                                table(static_cast<int64_t>(ids(b, l)), c) * static_cast<double>(scale);
                        }
                    }
                }
                return Tensors{y.tensor()};
            },
        .flops = static_cast<double>(batch * length * channels),
        .bytes = [](const Tensors&, const Tensors& y) { return 2.0 * static_cast<double>(y[0].bytes()); },
    };
}

Instance timestep(int64_t count, int64_t width) {
    return {
        .name = join("M", count, " D", width),
        .inputs = [=](Generator& g) { return Inputs{g.uniform({count}, 0, 1000)}; },
        .run = [=](const Tensors& in) { return Tensors{timestep_embedding(in[0], width)}; },
        .reference =
            [=](const Tensors& in) {
                Values t(in[0]), y(Shape{count, width});
                for (int64_t i = 0; i < count; ++i) {
                    for (int64_t j = 0; j < width / 2; ++j) {
                        double g =
                            std::pow(10000.0, -2.0 * static_cast<double>(j) / static_cast<double>(width));
                        y(i, j) = std::cos(t(i) * g);
                        y(i, j + width / 2) = std::sin(t(i) * g);
                    }
                }
                return Tensors{y.tensor()};
            },
        .flops = 20.0 * static_cast<double>(count * width),
    };
}

}  // namespace

std::vector<Case> embed_cases() {
    // One rounding; the factors are numbers of every dtype.
    Case table{.name = "embedding", .bounds = {1e-7, kRoundBf16, kRoundF16}};
    table.tests = {lookup(1, 1, 1, 1, 1), lookup(2, 7, 11, 5, 48), lookup(3, 300, 97, 2304, 48),
                   lookup(1, 33, 50, 2241, 0.75f)};
    table.bench_cpu = {lookup(1, 300, 32000, 2304, 48)};
    table.bench_gpu = {lookup(2, 300, 256000, 2304, 48)};

    // An angle of up to 1000 has an error of 3e-5 in fp32, times that of the frequency.
    Case time{.name = "timestep_embedding", .bounds = {3e-5, 0, 0}};
    time.dtypes = {DType::F32};
    time.tests = {timestep(1, 2), timestep(1, 256), timestep(7, 256), timestep(21, 6)};
    time.bench_cpu = {timestep(21, 256)};
    time.bench_gpu = {timestep(42, 256)};
    return {table, time};
}

}  // namespace sana::cases
