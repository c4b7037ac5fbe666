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
    if (buffers_.try_emplace(leaf.storage().get()).second) alive_.push_back(leaf.storage());
}

void Tape::push(const Tensor& result, std::function<void(Tape&, const Tensor&)> carry) {
    require(result);
    entries_.push_back({result, std::move(carry)});
}

Tensor Tape::gradient(const Tensor& x) {
    auto it = buffers_.find(x.storage().get());
    check(it != buffers_.end(), "the gradient of ", x, " was not asked for: Tape::require() it first");
    Tensor& buffer = it->second;
    if (!buffer.defined()) buffer = zeros({x.storage()->bytes() / size_of(x.dtype())}, x.dtype(), x.device());
    check(buffer.dtype() == x.dtype(), "a gradient of ", x, " in a buffer of ", buffer.dtype());
    return x.rebased(buffer.storage(), buffer.byte_offset() + x.byte_offset());
}

void Tape::accumulate(const Tensor& x, const Tensor& dx) {
    if (!needs(x)) return;
    check(dx.shape() == x.shape(), "a gradient ", dx, " for ", x);
    Tensor place = gradient(x), sum = add(place, dx);
    copy(sum, place);
}

void Tape::backward(const Tensor& y, const Tensor& seed) {
    check(needs(y), "backward from ", y, ", which depends on nothing that was required");
    NoTape pause;
    accumulate(y, seed);
    while (!entries_.empty()) {
        Entry entry = std::move(entries_.back());
        entries_.pop_back();
        auto it = buffers_.find(entry.result.storage().get());
        if (it->second.defined()) entry.carry(*this, gradient(entry.result).contiguous());
    }
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
