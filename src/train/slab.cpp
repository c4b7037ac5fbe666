#include "train/slab.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <tuple>

#include "ops/pointwise.h"

namespace sana {

namespace {

constexpr int64_t kAlign = 64;  // elements: views start at whole vectors and cache lines

constexpr std::array<const char*, 3> kOptimizers{"adamw", "came", "muon"};

constexpr int64_t kSmallestSide = 16;                 // of a matrix that Muon takes
constexpr int64_t kLargestStack = int64_t{64} << 20;  // elements; a step needs up to 18 bytes for each

// A parameter as Muon's matrices; none: AdamW's.
struct Matrices {
    int64_t count = 0, rows = 0, cols = 0;
};

// Muon is for maps within the hidden space: factors of products (linear layers, and temporal convolutions [O,3,C] as
// O x 3C) inside blocks. Tables, depthwise kernels, norms and biases are no factors; what leads into the blocks and out
// of them is outside. Layers that others keep apart and that are one here are taken apart again, since each has singular
// values of its own.
Matrices matrices_of(const NamedParameter& p) {
    std::string name = "." + p.name;
    bool in_block = name.find(".blocks.") != std::string::npos || name.find(".layers.") != std::string::npos;
    if (!in_block || !p.parameter->factor) return {};
    int64_t parts = 1;
    if (name.ends_with(".qkv.weight")) parts = 3;
    if (name.ends_with(".kv.weight") || name.ends_with(".gate_up.weight")) parts = 2;
    const Shape& shape = p.parameter->shape;
    Matrices out{parts, shape[0] / parts, shape.numel() / shape[0]};
    return std::min(out.rows, out.cols) < kSmallestSide ? Matrices() : out;
}

}  // namespace

const char* name_of(Optimizer optimizer) { return kOptimizers[static_cast<size_t>(optimizer)]; }

Optimizer optimizer_of(const std::string& name) {
    auto it = std::find(kOptimizers.begin(), kOptimizers.end(), name);
    check_input(it != kOptimizers.end(), "there is no optimiser '", name, "'");
    return static_cast<Optimizer>(it - kOptimizers.begin());
}

Tensor Slab::Stack::of(const Tensor& slab) const {
    return slab.outer_slice(start, size()).reshape({count, rows, cols});
}

int64_t Slab::place() {
    std::vector<Matrices> matrices(parameters_.size());
    std::vector<size_t> order(parameters_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    if (options_.optimizer == Optimizer::muon) {
        std::transform(parameters_.begin(), parameters_.end(), matrices.begin(), matrices_of);
        std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) {
            auto key = [](const Matrices& k) { return std::tuple(k.count == 0, k.rows, k.cols); };
            return key(matrices[i]) < key(matrices[j]);
        });
    }
    starts_.resize(parameters_.size());
    int64_t size = 0;
    for (size_t i : order) {
        Stack next{size, matrices[i].count, matrices[i].rows, matrices[i].cols};
        starts_[i] = size;
        size += (parameters_[i].parameter->shape.numel() + kAlign - 1) / kAlign * kAlign;
        if (next.count == 0) continue;
        rest_ = size;
        Stack* last = stacks_.empty() ? nullptr : &stacks_.back();
        bool joins = last != nullptr && last->rows == next.rows && last->cols == next.cols &&
                     last->start + last->size() == next.start && last->size() + next.size() <= kLargestStack;
        if (joins) {
            last->count += next.count;
        } else {
            stacks_.push_back(next);
        }
    }
    check_input(options_.optimizer != Optimizer::muon || !stacks_.empty(),
                "optimiser muon: nothing that is trained is a matrix of a transformer's blocks; choose adamw "
                "or came");
    return size;
}

Slab::Slab(const std::vector<NamedParameter>& parameters, const SlabOptions& options) : options_(options) {
    for (const NamedParameter& p : parameters) {
        if (p.parameter->keep_fp32) continue;
        check(p.parameter->value.defined(), "parameter ", p.name, " has no value to train");
        parameters_.push_back(p);
    }
    int64_t size = place();
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
    if (options.optimizer != Optimizer::came) {
        v_ = zeros({size - rest_}, DType::F32, device);
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
    if (options_.optimizer != Optimizer::came) {
        for (const Stack& s : stacks_) {
            MuonOptions u{.rate = o.rate, .beta = o.momentum, .decay = o.decay, .factor = factor};
            muon(u, s.of(gradient_), s.of(masters_), s.of(m_), fused ? s.of(compute_) : Tensor());
        }
        auto rest = [&](const Tensor& slab) { return slab.outer_slice(rest_, v_.numel()); };
        AdamWOptions a{o.rate, o.beta1, o.beta2, o.epsilon, o.decay, step, factor};
        adamw(a, rest(gradient_), rest(masters_), rest(m_), v_, fused ? rest(compute_) : Tensor());
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
        if (v_.defined() && starts_[i] >= rest_) {
            const Shape& shape = parameters_[i].parameter->shape;
            out["v." + name] = v_.outer_slice(starts_[i] - rest_, shape.numel()).reshape(shape);
        }
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
