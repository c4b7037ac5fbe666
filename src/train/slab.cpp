#include "train/slab.h"

#include <cmath>

#include "ops/pointwise.h"

namespace sana {

namespace {

constexpr int64_t kAlign = 64;  // elements: views start at whole vectors and cache lines

}  // namespace

Slab::Slab(const std::vector<NamedParameter>& parameters, const SlabOptions& options) : options_(options) {
    int64_t size = 0;
    for (const NamedParameter& p : parameters) {
        if (p.parameter->keep_fp32) continue;
        check(p.parameter->value.defined(), "parameter ", p.name, " has no value to train");
        parameters_.push_back(p);
        starts_.push_back(size);
        size += (p.parameter->shape.numel() + kAlign - 1) / kAlign * kAlign;
    }
    check(size > 0, "there is nothing to train");
    Device device = options.device;
    masters_ = zeros({size}, DType::F32, device);
    for (size_t i = 0; i < parameters_.size(); ++i) {
        Tensor place = view(masters_, i);
        copy(parameters_[i].parameter->value, place);
    }
    compute_ = options.compute == DType::F32 ? masters_ : masters_.to(options.compute);
    m_ = zeros({size}, DType::F32, device);
    if (options.average) average_ = masters_.clone();
    if (options.optimizer == Optimizer::adamw) {
        v_ = zeros({size}, DType::F32, device);
    } else {
        for (const NamedParameter& p : parameters_) {
            auto line = [&](int64_t n) { return zeros({n}, DType::F32, device); };
            int64_t count = p.parameter->shape.numel(), rows = p.parameter->shape[0];
            CameState state;
            bool matrix = p.parameter->shape.rank() > 1 && rows > 1 && count > rows;
            state.columns = line(matrix ? count / rows : count);
            if (matrix) {
                state.rows = line(rows);
                state.doubt_rows = line(rows);
                state.doubt_columns = line(count / rows);
            }
            factors_.push_back({state});
        }
    }
    for (size_t i = 0; i < parameters_.size(); ++i)
        parameters_[i].parameter->value = view(compute_, i).named(parameters_[i].name);
}

Tensor Slab::view(const Tensor& slab, size_t i) const {
    const Shape& shape = parameters_[i].parameter->shape;
    return slab.outer_slice(starts_[i], shape.numel()).reshape(shape);
}

int64_t Slab::count() const { return sana::count(parameters_); }

void Slab::require(Tape& tape) const {
    compute_.storage()->derived.reset();
    tape.require(compute_);
}

void Slab::gather(const Tensor& g, double weight) {
    if (!gathered_ && weight == 1) {
        gradient_ = g;
    } else if (!gathered_) {
        gradient_ = combine({{weight, g.to(DType::F32)}});
    } else {
        gradient_ = combine({{1, gradient_.to(DType::F32)}, {weight, g.to(DType::F32)}});
    }
    gathered_ = true;
}

void Slab::forget() {
    gradient_ = {};
    gathered_ = false;
}

bool Slab::finite() const { return std::isfinite(square_sum(masters_)); }

std::string Slab::not_finite() const {
    for (size_t i = parameters_.size(); gathered_ && i-- > 0;) {
        if (!std::isfinite(square_sum(view(gradient_, i)))) return parameters_[i].name;
    }
    return {};
}

void Slab::sum(Group& group) {
    check(gathered_, "a sum of gradients that were not gathered");
    if (group.size() == 1) return;
    gradient_ = combine({{1, gradient_.to(DType::F32)}});  // a place of its own
    group.sum(gradient_);
}

double Slab::norm() const {
    check(gathered_, "the norm of a gradient that was not gathered");
    return std::sqrt(square_sum(gradient_));
}

void Slab::step(int64_t step, const StepOptions& o, double norm) {
    check(gathered_, "a step without a gradient");
    double factor = o.clip > 0 && norm > o.clip ? o.clip / norm : 1;
    bool aliased = compute_.storage() == masters_.storage();
    // Gradients that were added up are fp32; a copy of the weights is then made afterwards.
    bool fused = !aliased && gradient_.dtype() == compute_.dtype();
    if (options_.optimizer == Optimizer::adamw) {
        AdamWOptions a{o.rate, o.beta1, o.beta2, o.epsilon, o.decay, step, factor};
        adamw(a, gradient_, masters_, m_, v_, fused ? compute_ : Tensor());
    } else {
        for (size_t i = 0; i < parameters_.size(); ++i) {
            CameState state = factors_[i].state;
            state.m = view(m_, i);
            CameOptions c{
                .rate = o.rate, .beta1 = o.beta1, .beta2 = o.beta2, .decay = o.decay, .factor = factor};
            came(c, view(gradient_, i), view(masters_, i), state, fused ? view(compute_, i) : Tensor());
        }
    }
    if (average_.defined())
        average_step(std::min(o.average, (1.0 + step) / (10.0 + step)), masters_, average_);
    if (!aliased && !fused) copy(masters_, compute_);
    compute_.storage()->derived.reset();  // what a backend packed of the old weights
    forget();
}

void Slab::set_compute(const Tensor& from) {
    if (compute_.storage() != from.storage()) copy(from, compute_);
    compute_.storage()->derived.reset();
}

void Slab::refresh() { set_compute(masters_); }

TensorMap Slab::state() const {
    TensorMap out;
    for (size_t i = 0; i < parameters_.size(); ++i) {
        const std::string& name = parameters_[i].name;
        out["weights." + name] = view(masters_, i);
        out["m." + name] = view(m_, i);
        if (v_.defined()) out["v." + name] = view(v_, i);
        if (average_.defined()) out["average." + name] = view(average_, i);
        if (factors_.empty()) continue;
        const CameState& s = factors_[i].state;
        out["columns." + name] = s.columns;
        if (!s.rows.defined()) continue;
        out["rows." + name] = s.rows;
        out["doubt_rows." + name] = s.doubt_rows;
        out["doubt_columns." + name] = s.doubt_columns;
    }
    return out;
}

Tensor Slab::exported(size_t parameter) const {
    return view(average_.defined() ? average_ : masters_, parameter).to(kCpu);
}

// Where the model computes with the masters themselves, they have to make room and come back.
Slab::Averaged::Averaged(Slab& slab) : slab_(slab) {
    if (!slab_.average_.defined()) return;
    if (slab_.compute_.storage() == slab_.masters_.storage()) slab_.masters_ = slab_.masters_.clone();
    slab_.set_compute(slab_.average_);
}

Slab::Averaged::~Averaged() {
    if (!slab_.average_.defined()) return;
    slab_.set_compute(slab_.masters_);
    if (slab_.options_.compute == DType::F32) slab_.masters_ = slab_.compute_;
}

}  // namespace sana
