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
    virtual Losses losses(const Batch& batch, const Draws& draws) = 0;
    // Writes the trained parts of the model in the diffusers layout into a folder. value(i): parameter i of parameters()
    // as it shall be saved, fp32 on the host.
    virtual void write_model(const std::string& folder, const std::function<Tensor(size_t)>& value) = 0;
};

}  // namespace sana
