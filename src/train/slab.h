// All tensors that a run learns, in one place: fp32 master weights and what the optimiser keeps about them as flat slabs,
// the weights that the model computes with as views of one tensor. One step is then a launch or two, a checkpoint a list
// of views, and the tape keeps their gradients in one buffer of the same layout.
#pragma once

#include <string>
#include <vector>

#include "nn/module.h"
#include "ops/optim.h"
#include "ops/tape.h"
#include "train/group.h"

namespace sana {

// muon: the matrices of linear layers and temporal convolutions inside blocks by Muon, all other parameters by AdamW.
enum class Optimizer { adamw, came, muon };
const char* name_of(Optimizer optimizer);
Optimizer optimizer_of(const std::string& name);

struct SlabOptions {
    DType compute = DType::F32;  // dtype of the weights in the model; fp32: the masters themselves
    Device device;
    Optimizer optimizer = Optimizer::adamw;
    bool average = false;  // keeps an exponential moving average of the weights
};

struct StepOptions {
    double rate = 1e-4, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-10, decay = 0;
    double momentum = 0.95;  // of Muon
    double clip = 0;         // largest norm of all gradients together; 0: no limit
    double average = 0.999;  // rate of the moving average
};

class Slab {
public:
    // Parameters must have values (fp32, any device); afterwards they are views of compute(). Those that keep fp32
    // (statistics) are left alone.
    Slab(const std::vector<NamedParameter>& parameters, const SlabOptions& options);

    // Forgets what backends packed of the weights, too: what is recorded from here on packs them anew.
    void require(Tape& tape) const;
    // Of all weights, from a tape that is still alive.
    Tensor gradient(Tape& tape) const { return tape.gradient(compute_); }
    // Adds weight * gradient to the gradient of this step.
    void gather(const Tensor& gradient, double weight);

    // Over all processes; in fp32 from here on.
    void sum(Group& group);
    double norm() const;  // of what was gathered
    // Ends a step: clips the gathered gradient, whose norm this is, and moves the weights. step counts from 1.
    void step(int64_t step, const StepOptions& options, double norm);
    // The last parameter, in the model's order, whose gathered gradient is not finite; empty: none. What went wrong in a
    // backward pass spoils everything before it, so the last one is the nearest.
    std::string not_finite() const;
    void forget();        // what was gathered
    bool finite() const;  // the master weights

    // Everything that a run needs to go on, by name: "weights.NAME", "m.NAME", ... Views: writing into them restores.
    TensorMap state() const;
    void refresh();  // after writing into state(): the weights in the model follow the masters

    // The weights, or their moving average where there is one, as fp32 in the host's memory.
    Tensor exported(size_t parameter) const;
    const std::vector<NamedParameter>& parameters() const { return parameters_; }
    int64_t count() const;  // learned elements

    // While alive, the model computes with the moving average; nothing happens without one.
    class Averaged {
    public:
        explicit Averaged(Slab& slab);
        ~Averaged();

    private:
        Slab& slab_;
    };

private:
    struct Factors {  // of CAME, a parameter
        CameState state;
    };
    // Matrices of one shape, one behind the other without a gap, that Muon moves together.
    struct Stack {
        int64_t start, count, rows, cols;
        int64_t size() const { return count * rows * cols; }
        Tensor of(const Tensor& slab) const;  // [count,rows,cols]
    };
    int64_t place();  // gives every parameter its start; the size of the slab
    Tensor view(const Tensor& slab, size_t parameter) const;
    void set_compute(const Tensor& from);

    SlabOptions options_;
    std::vector<NamedParameter> parameters_;
    std::vector<int64_t> starts_;
    std::vector<Stack> stacks_;  // at the start of the slab
    int64_t rest_ = 0;           // where they end; v_ begins there
    Tensor masters_, compute_, m_, v_, average_, gradient_;
    bool gathered_ = false;
    std::vector<Factors> factors_;
};

}  // namespace sana
