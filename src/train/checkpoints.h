// The checkpoints of a run: folders step-00000100 under one folder, each with the trained state as safetensors shards and
// a record of where the run stood. A folder gets its name only when everything in it is on the disk, so that one that was
// cut short is never taken for a checkpoint.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "core/tensor.h"

namespace sana {

struct RunPosition {
    int64_t step = 0;      // optimiser steps made
    int64_t position = 0;  // next batch of the data
    // What must be the same for the run to go on: the stage, the data, the shape of the training.
    std::map<std::string, std::string> identity;
};

struct Saved {
    RunPosition at;
    TensorMap tensors;
    std::string folder;
};

class Checkpoints {
public:
    // small: moments in bf16, half the size; then a resumed run is close to, but not equal to, an uninterrupted one.
    Checkpoints(std::string folder, int64_t keep, bool small);

    // Returns the folder written; older checkpoints than the newest `keep` go.
    std::string save(const RunPosition& at, const TensorMap& state);

    std::optional<Saved> newest() const;  // InputError when a complete one cannot be read
    // The folder of the newest one; empty: none.
    std::string newest_folder() const;

private:
    std::string folder_;
    int64_t keep_;
    bool small_;
};

// Copies the saved tensors into the state of this run; InputError lists what is missing, surplus or of another shape.
void restore(const Saved& saved, const TensorMap& state);

}  // namespace sana
