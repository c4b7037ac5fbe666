// A frame and a block of channels at a time: a ring of three rows holds silu(x) with its zero border, so that SiLU is
// computed once and the nine taps read cache.
#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/simd.h"

namespace sana::cpu {

namespace {

constexpr int64_t kBlock = 256;  // channels a half: 3 rows of 2 x 256 channels fit the second-level cache

template <class T>
void run(const DepthwiseGluArgs& args) {
    using C = compute_t<T>;
    int64_t frames = args.x.dim(0) * args.x.dim(1), height = args.x.dim(2), width = args.x.dim(3);
    int64_t channels = args.x.dim(4), half = channels / 2, blocks = (half + kBlock - 1) / kBlock;
    std::vector<C> weight(static_cast<size_t>(9 * channels)), bias(static_cast<size_t>(channels), C(0));
    to_compute(args.weight.data<T>(), weight.data(), 9 * channels);
    if (args.bias.defined()) to_compute(args.bias.data<T>(), bias.data(), channels);

    parallel_for(frames * blocks, height * width * kBlock * 20, [&](int64_t task) {
        int64_t frame = task / blocks, start = task % blocks * kBlock, n = std::min(kBlock, half - start);
        thread_local std::vector<C> ring, sums;
        int64_t pitch = 2 * n, row_size = (width + 2) * pitch;
        ring.assign(static_cast<size_t>(3 * row_size), C(0));
        sums.resize(static_cast<size_t>(pitch));
        const T* x = args.x.data<T>() + frame * height * width * channels;
        T* y = args.y.data<T>() + frame * height * width * half;
        auto fill = [&](int64_t h) {
            C* row = ring.data() + (h + 3) % 3 * row_size;
            if (h >= height) {
                std::fill(row, row + row_size, C(0));
                return;
            }
            for (int64_t w = 0; w < width; ++w) {
                const T* in = x + (h * width + w) * channels + start;
                C* out = row + (w + 1) * pitch;
                to_compute(in, out, n);
                to_compute(in + half, out + n, n);
                activate_row(Activation::silu, out, 2 * n);
            }
        };
        fill(0);
        for (int64_t h = 0; h < height; ++h) {
            fill(h + 1);
            for (int64_t w = 0; w < width; ++w) {
                C* sum = sums.data();
                for (int64_t part = 0; part < 2; ++part) {
                    const C* b = bias.data() + part * half + start;
                    std::copy(b, b + n, sum + part * n);
                }
                for (int64_t dy = 0; dy < 3; ++dy) {
                    const C* row = ring.data() + (h + dy + 2) % 3 * row_size + w * pitch;
                    for (int64_t part = 0; part < 2; ++part) {
                        const C* k = weight.data() + dy * 3 * channels + part * half + start;
                        const C* in = row + part * n;
                        C* out = sum + part * n;
#pragma omp simd
                        for (int64_t c = 0; c < n; ++c) {
                            out[c] += k[c] * in[c] + k[c + channels] * in[c + pitch] +
                                      k[c + 2 * channels] * in[c + 2 * pitch];
                        }
                    }
                }
                activate_row(Activation::silu, sum + n, n);
#pragma omp simd
                for (int64_t c = 0; c < n; ++c) sum[c] *= sum[n + c];
                from_compute(sum, y + (h * width + w) * half + start, n);
            }
        }
    });
}

}  // namespace

void depthwise_glu(const DepthwiseGluArgs& args) {
    dispatch_float(args.x.dtype(), [&]<class T>() { run<T>(args); });
}

}  // namespace sana::cpu
