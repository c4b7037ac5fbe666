#include "sampling/step_cache.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/parallel.h"
#include "ops/pointwise.h"

namespace sana {

namespace {

// The mean of |a - b|, of |a| when b is none; fp32 on the host. Sums of equal pieces are added in order, so that the
// result does not depend on the number of threads.
double mean_distance(const Tensor& a, const Tensor& b) {
    constexpr int64_t kPiece = 1 << 14;
    const float *x = a.data<float>(), *y = b.defined() ? b.data<float>() : nullptr;
    int64_t n = a.numel();
    std::vector<double> sums(static_cast<size_t>((n + kPiece - 1) / kPiece));
    parallel_for(static_cast<int64_t>(sums.size()), kPiece, [&](int64_t piece) {
        double sum = 0;
        for (int64_t i = piece * kPiece; i < std::min(n, (piece + 1) * kPiece); ++i)
            sum += std::abs(static_cast<double>(x[i]) - (y == nullptr ? 0 : y[i]));
        sums[static_cast<size_t>(piece)] = sum;
    });
    return std::accumulate(sums.begin(), sums.end(), 0.0) / static_cast<double>(n);
}

Tensor on_host(const Tensor& x) { return x.to(kCpu).to(DType::F32).contiguous(); }

}  // namespace

StepCache::StepCache(double threshold, int64_t steps) : threshold_(threshold), steps_(steps) {
    check_input(threshold > 0, "the threshold of the step cache is ", threshold, "; it must be above 0");
}

bool StepCache::predictable(const Tensor& x) {
    bool always = step_ < std::max<int64_t>(2, steps_ / 5) || step_ + 1 >= steps_;
    double size = always || gain_ < 0 ? 0 : mean_distance(computed_v_, {});
    if (size == 0) return false;
    sum_ += gain_ * mean_distance(x, last_x_) / size;
    return sum_ < threshold_;
}

void StepCache::remember(const Tensor& x, const Tensor& v) {
    if (computed_x_.defined()) {
        double input = mean_distance(x, computed_x_);
        gain_ = input > 0 ? mean_distance(v, computed_v_) / input : -1;
    }
    computed_x_ = x;
    computed_v_ = v;
    sum_ = 0;
}

Tensor StepCache::velocity(const Tensor& x, double t, const Velocity& model) {
    check(step_ < steps_, "step ", step_, " of a step cache of ", steps_, " steps");
    Tensor host = on_host(x), v;
    if (predictable(host)) {
        v = combine({{1, x}, {1, offset_}});
        ++skipped_;
    } else {
        v = model(x, t);
        offset_ = combine({{1, v}, {-1, x}});
        remember(host, on_host(v));
    }
    last_x_ = host;
    ++step_;
    return v;
}

}  // namespace sana
