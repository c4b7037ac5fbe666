#include "train/metrics.h"

#include <chrono>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/check.h"
#include "io/text_file.h"

namespace sana {

namespace {

double now() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

Metrics::Metrics(const std::string& folder, int64_t step)
    : path_(folder + "/metrics.jsonl"), board_(folder, now()) {
    if (!file_exists(path_)) return;
    std::istringstream lines(read_text_file(path_));
    std::string kept;
    for (std::string line; std::getline(lines, line);) {
        auto json = nlohmann::json::parse(line, nullptr, false);
        if (json.is_object() && json.value("step", int64_t{0}) <= step) kept += line + "\n";
    }
    write_text_file(path_, kept);
}

void Metrics::add(int64_t step, const std::vector<std::pair<std::string, double>>& values) {
    nlohmann::ordered_json json{{"step", step}, {"time", now()}};
    for (const auto& [name, value] : values) {
        if (std::isfinite(value)) json[name] = value;
    }
    std::ofstream file(path_, std::ios::app);
    file << json.dump() << "\n" << std::flush;
    check_input(file.good(), path_, ": cannot be written; is the disk full?");
    board_.add(step, now(), values);
}

}  // namespace sana
