// Measuring one thing of a benchmark, and telling of it with the machine it ran on.
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "apps/console.h"
#include "core/scope.h"
#include "pipeline/work.h"

namespace sana::apps {

// What nvidia-smi says of a GPU; fields that it does not know are absent.
struct GpuState {
    std::string name, driver;
    std::optional<double> sm_mhz, memory_mhz, watts, celsius;
};
std::optional<GpuState> gpu_state(Device device);  // none for the CPU, and where nvidia-smi is not at hand

// How long to measure: runs until both are reached.
struct Effort {
    int64_t repeats = 3;
    double seconds = 0;
    bool profile = false;
};

// Something to be timed. Its weights are there; run() waits for nothing.
struct Subject {
    std::string what, shape;
    DType dtype = DType::F32;
    Device device = kCpu;
    Work work;
    std::function<void()> run;
};

struct Measurement {
    double cold = 0;                // the first run: kernels are loaded and chosen, buffers allocated
    std::vector<double> times;      // of the runs behind it, one after the other without a pause
    int64_t weights = 0, peak = 0;  // bytes on the device before, and at most during the runs
    std::optional<GpuState> state;  // under this load
    std::map<std::string, ScopeTimes::Entry> scopes;

    double mean() const;
};
Measurement measure(const Subject& subject, const Effort& effort);

// Speeds that the floor is counted with, in flop/s and byte/s.
struct Ceilings {
    double product = 0, copy = 0;
};

// {"what", "shape", "dtype", "cold_s", "mean_s", ...}; null stands for what could not be found out.
nlohmann::ordered_json to_json(const Subject& subject, const Measurement& m, const Ceilings& ceilings);
// The machine, the program, the date and the command.
nlohmann::ordered_json environment(Device device);

// A table of lines for a reader.
std::string to_text(const Subject& subject, const Measurement& m, const Ceilings& ceilings);

}  // namespace sana::apps
