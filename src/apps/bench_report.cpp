#include "apps/bench_report.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <numeric>
#include <sstream>
#include <thread>

#include "core/cuda/device.h"
#include "core/parallel.h"

namespace sana::apps {

namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::ordered_json;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

std::optional<double> number_of(const std::string& text) {
    try {
        return std::stod(text);
    } catch (const std::exception&) {
        return std::nullopt;  // "[N/A]"
    }
}

ordered_json optional_json(const std::optional<double>& value) {
    return value ? ordered_json(*value) : ordered_json();
}

std::string cpu_name() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        size_t colon = line.find(": ");
        if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
    }
    return "";
}

std::string command_line() {
    std::ifstream file("/proc/self/cmdline", std::ios::binary);
    std::stringstream all;
    all << file.rdbuf();
    std::string text = all.str();
    std::replace(text.begin(), text.end(), '\0', ' ');
    return text.substr(0, text.find_last_not_of(' ') + 1);
}

std::string date_text() {
    std::time_t now = std::time(nullptr);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
    return text;
}

// blocks.0 > attention and blocks.1 > attention are one line: blocks.* > attention.
std::map<std::string, ScopeTimes::Entry> merged(const std::map<std::string, ScopeTimes::Entry>& entries) {
    std::map<std::string, ScopeTimes::Entry> out;
    for (const auto& [path, entry] : entries) {
        std::string name;
        for (size_t i = 0; i < path.size(); ++i) {
            name += path[i];
            if (path[i] != '.' || i + 1 == path.size() || path[i + 1] < '0' || path[i + 1] > '9') continue;
            name += '*';
            while (i + 1 < path.size() && path[i + 1] >= '0' && path[i + 1] <= '9') ++i;
        }
        out[name].calls += entry.calls;
        out[name].seconds += entry.seconds;
    }
    return out;
}

template <class... Parts>
std::string formatted(const char* format, Parts... parts) {
    char text[256];
    std::snprintf(text, sizeof text, format, parts...);
    return text;
}

}  // namespace

std::optional<GpuState> gpu_state(Device device) {
    if (device == kCpu) return std::nullopt;
    std::string command =
        join("nvidia-smi --id=", device.index,
             " --query-gpu=name,driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu "
             "--format=csv,noheader,nounits 2>/dev/null");
    FILE* pipe = popen(command.c_str(), "r");
    if (pipe == nullptr) return std::nullopt;
    char line[512] = "";
    bool read = std::fgets(line, sizeof line, pipe) != nullptr;
    if (pclose(pipe) != 0 || !read) return std::nullopt;
    std::vector<std::string> fields;
    std::stringstream stream(line);
    for (std::string field; std::getline(stream, field, ',');)
        fields.push_back(field.substr(std::min(field.find_first_not_of(' '), field.size())));
    if (fields.size() != 6) return std::nullopt;
    return GpuState{
        fields[0],           fields[1], number_of(fields[2]), number_of(fields[3]), number_of(fields[4]),
        number_of(fields[5])};
}

double Measurement::mean() const {
    return std::accumulate(times.begin(), times.end(), 0.0) / static_cast<double>(times.size());
}

Measurement measure(const Subject& subject, const Effort& effort) {
    Measurement m;
    auto timed = [&] {
        Clock::time_point start = Clock::now();
        subject.run();
        synchronise(subject.device);
        return seconds_since(start);
    };
    m.weights = memory_statistics(subject.device).active;
    m.cold = timed();
    reset_peak(subject.device);
    double total = 0;
    while (static_cast<int64_t>(m.times.size()) < effort.repeats || total < effort.seconds) {
        m.times.push_back(timed());
        total += m.times.back();
    }
    m.peak = memory_statistics(subject.device).peak;
    if (subject.device != kCpu) {
        // Asked while the work goes on, outside the times.
        std::thread asking([&] { m.state = gpu_state(subject.device); });
        Clock::time_point start = Clock::now();
        while (seconds_since(start) < 0.3) timed();
        asking.join();
    }
    if (effort.profile) {
        ScopeTimes times(subject.device);
        timed();
        m.scopes = merged(times.entries);
    }
    return m;
}

ordered_json environment(Device device) {
    ordered_json out{{"date", date_text()},    {"command", command_line()}, {"version", version_text()},
                     {"device", join(device)}, {"cpu", cpu_name()},         {"threads", threads()}};
    if (device == kCpu) return out;
    cuda::DeviceInfo info = cuda::device_info(device.index);
    std::optional<GpuState> state = gpu_state(device);
    out["gpu"] = {{"name", info.name},
                  {"memory_bytes", info.memory},
                  {"multiprocessors", info.multiprocessors},
                  {"driver", state ? ordered_json(state->driver) : ordered_json()}};
    return out;
}

ordered_json to_json(const Subject& subject, const Measurement& m, const Ceilings& ceilings) {
    auto [low, high] = std::minmax_element(m.times.begin(), m.times.end());
    double mean = m.mean(), least = subject.work.floor(ceilings.product, ceilings.copy);
    ordered_json out{
        {"what", subject.what},
        {"shape", subject.shape},
        {"dtype", join(subject.dtype)},
        {"cold_s", m.cold},
        {"mean_s", mean},
        {"min_s", *low},
        {"max_s", *high},
        {"runs", m.times.size()},
        {"tflop", subject.work.flop * 1e-12},
        {"tflop_per_s", subject.work.flop / mean * 1e-12},
        {"floor_s", least},
        {"floor_share", least / mean},
        {"ceilings", {{"tflop_per_s", ceilings.product * 1e-12}, {"tb_per_s", ceilings.copy * 1e-12}}},
        {"memory", {{"before_bytes", m.weights}, {"peak_bytes", m.peak}}}};
    if (subject.device == kCpu) out["memory"]["peak_resident_bytes"] = peak_resident_bytes();
    if (subject.device != kCpu) {
        const GpuState state = m.state.value_or(GpuState{});
        out["under_load"] = {{"sm_mhz", optional_json(state.sm_mhz)},
                             {"memory_mhz", optional_json(state.memory_mhz)},
                             {"watts", optional_json(state.watts)},
                             {"celsius", optional_json(state.celsius)}};
    }
    if (!m.scopes.empty()) out["scopes"] = ordered_json::array();
    for (const auto& [path, entry] : m.scopes)
        out["scopes"].push_back({{"path", path}, {"calls", entry.calls}, {"seconds", entry.seconds}});
    return out;
}

std::string to_text(const Subject& subject, const Measurement& m, const Ceilings& ceilings) {
    auto [low, high] = std::minmax_element(m.times.begin(), m.times.end());
    double mean = m.mean(), least = subject.work.floor(ceilings.product, ceilings.copy);
    std::string out =
        join(subject.what, ", ", subject.shape, ", ", subject.dtype, ", ", subject.device, "\n");
    out += formatted("  %10.2f ms  mean of %zu (%.2f .. %.2f), first %.1f ms\n", mean * 1e3, m.times.size(),
                     *low * 1e3, *high * 1e3, m.cold * 1e3);
    out += formatted("  %10.2f ms  floor at %.4g TFLOP/s and %.3g TB/s: %.0f %% of it reached\n", least * 1e3,
                     ceilings.product * 1e-12, ceilings.copy * 1e-12, least / mean * 100);
    out += formatted("  %10.4g     TFLOP/s (%.4g TFLOP)\n", subject.work.flop / mean * 1e-12,
                     subject.work.flop * 1e-12);
    out += join("  ", bytes_text(static_cast<double>(m.weights)), " before, ",
                bytes_text(static_cast<double>(m.peak)), " at most\n");
    if (m.state && m.state->sm_mhz)
        out +=
            formatted("  %.0f MHz, %.0f W under this load\n", *m.state->sm_mhz, m.state->watts.value_or(0));
    std::vector<std::pair<double, std::string>> rows;
    for (const auto& [path, entry] : m.scopes) rows.emplace_back(entry.seconds, path);
    std::sort(rows.rbegin(), rows.rend());
    for (const auto& [seconds, path] : rows) {
        out += formatted("  %10.2f ms  %s (%lld)\n", seconds * 1e3, path.c_str(),
                         static_cast<long long>(m.scopes.at(path).calls));
    }
    return out;
}

}  // namespace sana::apps
