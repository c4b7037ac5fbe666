// What a run minimises: a model's loss on a batch, and which parameters it has.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "nn/module.h"
#include "train/source.h"

namespace sana {

// Random numbers of one use in one step: equal wherever and whenever the step is made.
struct Draws {
    uint64_t seed = 0;
    int64_t position = 0;  // of the batch
    // A stream of its own for each purpose.
    uint64_t stream(uint64_t purpose) const { return static_cast<uint64_t>(position) * 64 + purpose; }
    Tensor normal(const Shape& shape, uint64_t purpose, Device device = kCpu) const;  // fp32
    std::vector<double> uniform(size_t count, uint64_t purpose) const;                // in [0, 1)
};

// Places in the host's memory from which a device copies at full speed. One that nobody holds any more is used again.
class Staging {
public:
    Tensor take(const Shape& shape, DType dtype, Device device);

private:
    std::vector<StoragePtr> places_;
};

struct Losses {
    Tensor total;                         // [1], recorded on the tape of the thread
    std::map<std::string, Tensor> parts;  // for the record
};

class Objective {
public:
    virtual ~Objective() = default;
    virtual std::string stage() const = 0;
    // Learned parameters, with values; names are unique.
    virtual std::vector<NamedParameter> parameters() = 0;

    // A step in three parts, so that the host works on the next batch while the device is busy with this one, and what the
    // device does can be recorded once and repeated.
    // The host's part: tensors in its memory.
    virtual std::vector<Tensor> prepare(const Batch& batch, const Draws& draws) = 0;
    // On the device, with the noise: all that the loss depends on beside the weights.
    virtual std::vector<Tensor> inputs(const Batch& batch, const std::vector<Tensor>& prepared,
                                       const Draws& draws) = 0;
    // The device's part, without reading anything back or giving it anything from the host's memory.
    virtual Losses losses_of(const std::vector<Tensor>& inputs) = 0;
    // How well a batch that is not trained on is done, by name; "held_out" is the loss. Nothing is recorded.
    virtual std::map<std::string, double> judge(const std::vector<Tensor>& inputs);

    // All three parts.
    Losses losses(const Batch& batch, const Draws& draws);
    // Writes the trained parts of the model in the diffusers layout into a folder. value(i): parameter i of parameters()
    // as it shall be saved, fp32 on the host.
    virtual void write_model(const std::string& folder, const std::function<Tensor(size_t)>& value) = 0;
};

}  // namespace sana
