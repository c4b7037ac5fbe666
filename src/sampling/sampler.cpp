#include "sampling/sampler.h"

#include <algorithm>
#include <cmath>

#include "ops/pointwise.h"

namespace sana {

namespace {

double fp32(double value) { return static_cast<double>(static_cast<float>(value)); }

}  // namespace

std::optional<SamplerKind> parse_sampler(std::string_view name) {
    if (name == "dpm" || name == "dpm_solver" || name == "dpm++" || name == "flow_dpm-solver")
        return SamplerKind::dpm_solver;
    if (name == "unipc") return SamplerKind::unipc;
    if (name == "euler" || name == "flow_euler") return SamplerKind::flow_euler;
    return std::nullopt;
}

std::string_view name_of(SamplerKind kind) {
    switch (kind) {
        case SamplerKind::dpm_solver: return "dpm";
        case SamplerKind::unipc: return "unipc";
        case SamplerKind::flow_euler: return "euler";
    }
    return "";
}

Schedule make_schedule(SamplerKind kind, int64_t steps, double shift) {
    check_input(steps >= 1 && steps <= 1000, "steps is ", steps, "; it must lie in 1 .. 1000");
    check_input(shift > 0 && shift <= 1000, "flow shift is ", shift, "; it must be above 0 and at most 1000");
    auto shifted = [&](double u) { return shift * u / (1 + (shift - 1) * u); };
    double n = static_cast<double>(steps);
    Schedule s;
    for (int64_t i = 0; i < steps; ++i) {
        double k = static_cast<double>(i), sigma = 0;
        switch (kind) {
            case SamplerKind::dpm_solver: sigma = shifted(0.999 * (n - k) / n); break;
            case SamplerKind::unipc:
                sigma = shifted(1 - 0.999 * k / n);
                if (std::abs(sigma - 1) < 1e-6) sigma -= 1e-6;  // lambda(1) is infinite
                break;
            case SamplerKind::flow_euler: {
                // The smallest sigma is stored shifted, the grid down to it is shifted again.
                double low = fp32(shifted(fp32(0.001)));
                double u = steps == 1 ? 1.0 : 1 + (low - 1) * k / (n - 1);
                sigma = fp32(shifted(u));
                break;
            }
        }
        s.sigmas.push_back(fp32(sigma));
        s.timesteps.push_back(kind == SamplerKind::flow_euler ? fp32(sigma * 1000)
                                                              : std::trunc(sigma * 1000));
    }
    s.sigmas.push_back(0);
    return s;
}

Sampler::Sampler(SamplerKind kind, int64_t steps, double shift, int64_t first)
    : kind_(kind), schedule_(make_schedule(kind, steps, shift)), first_(first), k_(first) {
    check(first >= 0 && first < this->steps(), "a sampler of ", this->steps(), " steps that begins with ",
          first);
}

double Sampler::lambda(int64_t k) const {
    double sigma = schedule_.sigmas[static_cast<size_t>(k)];
    return std::log((1 - sigma) / sigma);
}

// x_{k+1} = (s'/s) x + A m_k [+ A (m_k - m_{k-1}) / (2 r)], A = 1 - s'/s, r = h_{k-1} / h_k
Tensor Sampler::predict(const Tensor& x, int64_t order) const {
    double ratio = schedule_.sigmas[static_cast<size_t>(k_ + 1)] / schedule_.sigmas[static_cast<size_t>(k_)];
    double a = 1 - ratio;
    if (order == 1) return combine({{ratio, x}, {a, m_[0]}});
    double r = (lambda(k_) - lambda(k_ - 1)) / (lambda(k_ + 1) - lambda(k_));
    return combine({{ratio, x}, {a + a / (2 * r), m_[0]}, {-a / (2 * r), m_[1]}});
}

// UniPC's corrector: the sample of this step once more, from the one before and the estimate made here.
Tensor Sampler::correct(const Tensor& x) const {
    if (k_ == first_) return x;
    double ratio = schedule_.sigmas[static_cast<size_t>(k_)] / schedule_.sigmas[static_cast<size_t>(k_ - 1)];
    double a = 1 - ratio;
    if (last_order_ == 1) return combine({{ratio, last_}, {a / 2, m_[1]}, {a / 2, m_[0]}});
    double h = lambda(k_) - lambda(k_ - 1), r = (lambda(k_ - 2) - lambda(k_ - 1)) / h;
    double f = std::expm1(-h), c1 = f / -h - 1, b1 = c1 / f, c2 = c1 / -h - 0.5, b2 = 2 * c2 / f;
    double rho0 = (b1 - b2) / (1 - r), rho1 = b1 - rho0;
    return combine(
        {{ratio, last_}, {a * (1 - rho0 / r - rho1), m_[1]}, {a * rho0 / r, m_[2]}, {a * rho1, m_[0]}});
}

Tensor Sampler::step(const Tensor& x, const Tensor& velocity) {
    check(k_ < steps(), "step ", k_, " of a sampler of ", steps(), " steps");
    double sigma = schedule_.sigmas[static_cast<size_t>(k_)],
           next = schedule_.sigmas[static_cast<size_t>(k_ + 1)];
    m_[2] = m_[1];
    m_[1] = m_[0];
    m_[0] = combine({{1, x}, {-sigma, velocity}});
    Tensor out;
    if (kind_ == SamplerKind::flow_euler) {
        out = combine({{1, x}, {next - sigma, velocity}});
    } else if (kind_ == SamplerKind::dpm_solver) {
        bool first_order = k_ == first_ || k_ == steps() - 1;
        out = first_order ? combine({{1, x}, {next - sigma, velocity}}) : predict(x, 2);
    } else {
        last_ = correct(x);
        last_order_ = std::min<int64_t>({2, steps() - k_, k_ - first_ + 1});
        out = predict(last_, last_order_);
    }
    ++k_;
    return out;
}

}  // namespace sana
