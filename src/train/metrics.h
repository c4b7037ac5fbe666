// The record of a run: metrics.jsonl, a line of names and numbers a step, and the same for TensorBoard.
#pragma once

#include <string>
#include <vector>

#include "train/tensorboard.h"

namespace sana {

class Metrics {
public:
    // Lines of steps after `step` are left from a run that got further than its checkpoint: they go.
    Metrics(const std::string& folder, int64_t step);
    void add(int64_t step, const std::vector<std::pair<std::string, double>>& values);

private:
    std::string path_;
    TensorBoard board_;
};

}  // namespace sana
