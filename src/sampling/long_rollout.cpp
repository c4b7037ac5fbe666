#include "sampling/long_rollout.h"

#include <cmath>

#include "ops/layout.h"
#include "ops/pointwise.h"

namespace sana {

std::vector<int64_t> chunk_starts(int64_t frames, int64_t chunk) {
    check_input(frames >= 1 && chunk >= 1, "a clip of ", frames, " latent frames in chunks of ", chunk);
    std::vector<int64_t> starts = {0};
    for (int64_t next = chunk + frames % chunk; next < frames; next += chunk) starts.push_back(next);
    return starts;
}

double table_sigma(double t, double shift) {
    double best = 0, distance = INFINITY;
    for (int k = 0; k < 1000; ++k) {
        double u = 1 - k / 1000.0, sigma = shift * u / (1 + (shift - 1) * u);
        if (std::abs(1000 * sigma - t) < distance) {
            distance = std::abs(1000 * sigma - t);
            best = sigma;
        }
    }
    return best;
}

namespace {

// fp64 is arithmetic of the CPU; latents are small.
Tensor in_fp64(const Tensor& x) { return x.to(kCpu).to(DType::F64); }

}  // namespace

Tensor LongRollout::run(const Tensor& noise, const std::vector<int64_t>& starts) const {
    std::vector<Tensor> chunks;
    for (size_t c = 0; c < starts.size(); ++c) {
        int64_t start = starts[c], end = c + 1 < starts.size() ? starts[c + 1] : noise.dim(1);
        Tensor x = slice(noise, 1, start, end - start);
        for (size_t m = 0; m < steps.size(); ++m) {
            Tensor v = velocity(x, steps[m], start, end, false);
            Tensor clean = combine({{1, in_fp64(x)}, {-table_sigma(steps[m], flow_shift), in_fp64(v)}})
                               .to(noise.dtype())
                               .to(noise.device());
            if (m + 1 == steps.size()) {
                x = clean;
            } else {
                double sigma = table_sigma(steps[m + 1], flow_shift);
                x = combine({{1 - sigma, clean}, {sigma, fresh_noise(clean)}});
            }
        }
        velocity(x, 0, start, end, true);
        chunks.push_back(x);
        if (on_chunk) on_chunk(start, x);
    }
    return concat(chunks, 1);
}

}  // namespace sana
