// Whole requests as a benchmark: every phase of the pipeline, on random weights or on those of a folder.
#pragma once

#include "apps/bench_report.h"
#include "pipeline/model_folder.h"
#include "pipeline/placement.h"
#include "pipeline/request.h"

namespace sana::apps {

struct RequestRun {
    double seconds = 0;
    std::vector<std::pair<Phase, double>> phases;  // seconds of each, in order of first appearance
    std::vector<std::pair<Phase, int64_t>> taken;  // device memory taken from the system, at most
    std::vector<std::string> notes;
};

struct RequestMeasurement {
    std::vector<RequestRun> runs;       // the first one is cold
    std::optional<double> cache_error;  // of the latents: relative L2 against those without the step cache
};

// The request `1 + repeats` times in this process, frames thrown away. With a step cache, once more without it.
RequestMeasurement measure_request(const ModelFolder& model, const Placement& placement,
                                   const Request& request, int64_t repeats);

nlohmann::ordered_json to_json(const RequestMeasurement& m);
std::string to_text(const RequestMeasurement& m);

}  // namespace sana::apps
