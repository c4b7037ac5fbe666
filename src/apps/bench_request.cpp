#include "apps/bench_request.h"

#include <algorithm>
#include <cstdio>

#include "pipeline/video_pipeline.h"

namespace sana::apps {

namespace {

using Clock = std::chrono::steady_clock;

template <class V>
V& entry(std::vector<std::pair<Phase, V>>& list, Phase phase) {
    for (auto& [name, value] : list) {
        if (name == phase) return value;
    }
    return list.emplace_back(phase, V{}).second;
}

// One run; latents: receives the finished ones. The pipeline reports where a phase begins and ends, with the device idle.
RequestRun run_request(const ModelFolder& model, const Placement& placement, const Request& request,
                       Tensor& latents) {
    RequestRun run;
    Phase phase = Phase::load;
    Clock::time_point start = Clock::now(), since = start;
    auto close = [&] {
        Clock::time_point now = Clock::now();
        entry(run.phases, phase) += std::chrono::duration<double>(now - since).count();
        int64_t& most = entry(run.taken, phase);
        most = std::max(most, memory_statistics(placement.device).peak_taken);
        reset_peak(placement.device);
        since = now;
    };
    Hooks hooks;
    hooks.progress = [&](const Progress& p) {
        close();
        phase = p.phase;
    };
    hooks.note = [&](const std::string& text) { run.notes.push_back(text); };
    hooks.latents = [&](const Tensor& x) { latents = x; };
    hooks.frames = [](const Tensor&) {};
    reset_peak(placement.device);
    VideoPipeline(model, placement).generate(request, hooks);
    synchronise(placement.device);
    close();
    run.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    return run;
}

}  // namespace

RequestMeasurement measure_request(const ModelFolder& model, const Placement& placement,
                                   const Request& request, int64_t repeats) {
    RequestMeasurement m;
    Tensor latents, exact;
    for (int64_t i = 0; i <= repeats; ++i) {
        m.runs.push_back(run_request(model, placement, request, latents));
        make_room(placement.device);
    }
    if (request.step_cache > 0) {
        Request plain = request;
        plain.step_cache = 0;
        m.runs.push_back(run_request(model, placement, plain, exact));
        m.runs.back().notes.push_back("without the step cache");
        m.cache_error = relative_l2(latents, exact);
    }
    return m;
}

nlohmann::ordered_json to_json(const RequestMeasurement& m) {
    nlohmann::ordered_json out{{"what", "request"}, {"runs", nlohmann::ordered_json::array()}};
    for (const RequestRun& run : m.runs) {
        nlohmann::ordered_json one{{"seconds", run.seconds}};
        for (const auto& [phase, seconds] : run.phases)
            one["phases_s"][std::string(name_of(phase))] = seconds;
        for (const auto& [phase, bytes] : run.taken) one["taken_bytes"][std::string(name_of(phase))] = bytes;
        one["notes"] = run.notes;
        out["runs"].push_back(one);
    }
    if (m.cache_error) out["step_cache_latents_relative_l2"] = *m.cache_error;
    return out;
}

std::string to_text(const RequestMeasurement& m) {
    std::string out;
    for (const RequestRun& run : m.runs) {
        char text[128];
        std::snprintf(text, sizeof text, "%8.3f s%s\n", run.seconds, &run == &m.runs[0] ? "  (first)" : "");
        out += text;
        for (const auto& [phase, seconds] : run.phases) {
            int64_t bytes = 0;
            for (const auto& [name, taken] : run.taken) {
                if (name == phase) bytes = taken;
            }
            std::snprintf(text, sizeof text, "    %8.3f s  %-8s %s\n", seconds,
                          std::string(name_of(phase)).c_str(),
                          bytes_text(static_cast<double>(bytes)).c_str());
            out += text;
        }
        for (const std::string& note : run.notes) out += "    " + note + "\n";
    }
    if (m.cache_error)
        out +=
            join("latents with the step cache against those without it: relative L2 ", *m.cache_error, "\n");
    return out;
}

}  // namespace sana::apps
