// Derivatives by recording. While a Tape is alive on a thread, ops whose inputs need gradients record how to carry a
// gradient of their result back to them.
//     Tape tape;  tape.require(w);  Tensor y = f(w);  tape.backward(y, dy);  Tensor dw = tape.gradient(w);
// Gradients are kept a storage, in a buffer laid out like it: a view's gradient is the same view of the buffer, so views
// need no recording. Arithmetic in the dtype of the tensors.
#pragma once

#include <functional>
#include <map>
#include <vector>

#include "core/tensor.h"

namespace sana {

class Tape {
public:
    Tape();
    ~Tape();
    Tape(const Tape&) = delete;
    Tape& operator=(const Tape&) = delete;

    static Tape* current();  // of this thread; null: nothing is recorded

    void require(const Tensor& leaf);
    bool needs(const Tensor& x) const { return x.defined() && buffers_.count(x.storage().get()) != 0; }

    // Runs what was recorded in reverse, from y with the gradient seed (the shape of y). Once a tape. The gradients of
    // results are freed on the way, those of what was required stay.
    void backward(const Tensor& y, const Tensor& seed);

    // Of a tensor that was required; zeros when nothing reached it. A view of the tape's buffer.
    Tensor gradient(const Tensor& x);

    // For the ops: adds dx to the gradient of x, if x needs one.
    void accumulate(const Tensor& x, const Tensor& dx);
    void push(const Tensor& result, std::function<void(Tape&, const Tensor& dy)> carry);

    // Inside a carry: records f() anew and runs that record with the gradient dy of its result.
    void replay(const std::function<Tensor()>& f, const Tensor& dy);

private:
    struct Entry {
        Tensor result;
        std::function<void(Tape&, const Tensor&)> carry;
    };
    struct Buffer {
        StoragePtr of;          // keeps the address taken
        Tensor gradient = {};   // undefined until a gradient arrives
        bool required = false;  // by the caller, not the result of an op
        bool shared = false;    // the gradient's memory may be another's: not to be written
    };
    Buffer& buffer_of(const Tensor& x);
    void run_down_to(size_t entries);

    std::vector<Entry> entries_;
    std::map<const Storage*, Buffer> buffers_;
    Tape* previous_;
};

// f() without its record: only what f captures is kept, and the backward pass computes f a second time, recording it. A
// model's block f(x) then costs the memory of x. f must give the same result again, and may capture only tensors that
// outlive it or that the tape needs anyway.
Tensor checkpoint(std::function<Tensor()> f);

// Nothing is recorded while alive.
class NoTape {
public:
    NoTape();
    ~NoTape();

private:
    Tape* previous_;
};

// What an op does at its end: records carry(tape, dy) when one of the inputs needs a gradient, and returns the result.
template <class Carry>
Tensor record(std::initializer_list<const Tensor*> inputs, Tensor result, Carry carry) {
    Tape* tape = Tape::current();
    if (tape == nullptr) return result;
    for (const Tensor* input : inputs) {
        if (tape->needs(*input)) {
            tape->push(result, std::move(carry));
            break;
        }
    }
    return result;
}

// Sums over the rows of every group, [B,N,C] -> [B,G,C]: of a, or of a * b. With B = N = 1 dimension each, a [...,C]
// reshaped to [1,rows,C] gives the sum over all rows. Sums in fp32 (fp64 for fp64).
Tensor group_sum(const Tensor& a, const Tensor& b, int64_t groups);

// y[b,n,:] = x[b,n,:] * scale[b,g,:], row n in group n / (N/G).   x [B,N,C], scale [B,G,C]
Tensor group_scale(const Tensor& x, const Tensor& scale);

}  // namespace sana
