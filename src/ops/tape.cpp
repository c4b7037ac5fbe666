#include "ops/tape.h"

#include "ops/gradients.h"
#include "ops/kernels.h"
#include "ops/pointwise.h"

namespace sana {

namespace {

thread_local Tape* active = nullptr;

}  // namespace

Tape::Tape() : previous_(active) { active = this; }
Tape::~Tape() { active = previous_; }
Tape* Tape::current() { return active; }

NoTape::NoTape() : previous_(active) { active = nullptr; }
NoTape::~NoTape() { active = previous_; }

void Tape::require(const Tensor& leaf) {
    Buffer& buffer = buffers_[leaf.storage().get()];
    buffer.of = leaf.storage();
    buffer.required = true;
}

void Tape::push(const Tensor& result, std::function<void(Tape&, const Tensor&)> carry) {
    buffers_[result.storage().get()].of = result.storage();
    entries_.push_back({result, std::move(carry)});
}

Tape::Buffer& Tape::buffer_of(const Tensor& x) {
    auto it = buffers_.find(x.storage().get());
    check(it != buffers_.end(), "the gradient of ", x, " was not asked for: Tape::require() it first");
    Tensor& g = it->second.gradient;
    check(!g.defined() || g.dtype() == x.dtype(), "a gradient of ", x, " in a buffer of ", g.dtype());
    return it->second;
}

Tensor Tape::gradient(const Tensor& x) {
    Tensor& g = buffer_of(x).gradient;
    if (!g.defined()) g = zeros({x.storage()->bytes() / size_of(x.dtype())}, x.dtype(), x.device());
    return x.rebased(g.storage(), g.byte_offset() + x.byte_offset());
}

void Tape::accumulate(const Tensor& x, const Tensor& dx) {
    if (!needs(x)) return;
    check(dx.shape() == x.shape(), "a gradient ", dx, " for ", x);
    Buffer& buffer = buffer_of(x);
    bool whole = x.byte_offset() == 0 && x.dense() && x.bytes() == x.storage()->bytes();
    if (whole && !buffer.gradient.defined()) {
        check(dx.dtype() == x.dtype(), "a gradient ", dx, " for ", x);
        buffer.gradient = dx.contiguous().reshape({dx.numel()});
        buffer.shared = true;
        return;
    }
    if (buffer.shared && whole) {
        Tensor sum = empty(x.shape(), x.dtype(), x.device()), before = buffer.gradient.reshape(x.shape()),
               more = dx.contiguous();
        launch("add", &Kernels::add, x.device(), BinaryArgs{before, more, sum});
        buffer.gradient = sum.reshape({sum.numel()});
        buffer.shared = false;
        return;
    }
    if (buffer.shared) {
        buffer.gradient = buffer.gradient.clone();
        buffer.shared = false;
    }
    Tensor place = gradient(x);
    // Element by element, so that the sum may take its operand's place.
    launch("add", &Kernels::add, x.device(), BinaryArgs{place, dx, place});
}

void Tape::backward(const Tensor& y, const Tensor& seed) {
    check(needs(y), "backward from ", y, ", which depends on nothing that was required");
    NoTape pause;
    accumulate(y, seed);
    run_down_to(0);
}

void Tape::run_down_to(size_t count) {
    while (entries_.size() > count) {
        Entry entry = std::move(entries_.back());
        entries_.pop_back();
        auto it = buffers_.find(entry.result.storage().get());
        if (it->second.gradient.defined()) entry.carry(*this, gradient(entry.result).contiguous());
        if (!it->second.required) buffers_.erase(it);
    }
}

void Tape::replay(const std::function<Tensor()>& f, const Tensor& dy) {
    size_t before = entries_.size();
    Tape* kept = active;
    active = this;
    Tensor y;
    try {
        y = f();
    } catch (...) {
        active = kept;
        throw;
    }
    active = kept;
    if (needs(y)) accumulate(y, dy);
    run_down_to(before);
}

Tensor checkpoint(std::function<Tensor()> f) {
    Tape* tape = Tape::current();
    if (tape == nullptr) return f();
    Tensor y;
    {
        NoTape pause;
        y = f();
    }
    tape->push(y, [f = std::move(f)](Tape& t, const Tensor& dy) { t.replay(f, dy); });
    return y;
}

Tensor group_sum(const Tensor& a, const Tensor& b, int64_t groups) {
    DType dtype = same_dtype("group_sum", {&a, &b});
    check(a.rank() == 3 && groups > 0 && a.dim(1) % groups == 0 && (!b.defined() || b.shape() == a.shape()),
          "group_sum: ", a, " and ", b, " in ", groups, " groups");
    Tensor y = empty({a.dim(0), groups, a.dim(2)}, dtype, a.device());
    launch_gradient("group_sum", &GradientKernels::group_sum, a.device(), GroupSumArgs{a, b, y});
    return y;
}

Tensor group_scale(const Tensor& x, const Tensor& scale) {
    DType dtype = same_dtype("group_scale", {&x, &scale});
    check(x.rank() == 3 && scale.rank() == 3 && x.dim(0) == scale.dim(0) && x.dim(2) == scale.dim(2) &&
              x.dim(1) % scale.dim(1) == 0,
          "group_scale: ", x, " and ", scale);
    Tensor y = empty(x.shape(), dtype, x.device());
    launch_gradient("group_scale", &GradientKernels::group_scale, x.device(), GroupScaleArgs{x, scale, y});
    return y;
}

}  // namespace sana
