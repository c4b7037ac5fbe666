#include "nn/fp8.h"

#include <algorithm>

#include "core/scope.h"

namespace sana {

std::string layer_name(const std::string& parameter) {
    constexpr std::string_view kEnd = ".weight";
    return parameter.ends_with(kEnd) ? parameter.substr(0, parameter.size() - kEnd.size()) : parameter;
}

std::vector<std::string> parse_globs(const std::string& text) {
    std::vector<std::string> globs;
    for (size_t start = 0; start <= text.size();) {
        size_t end = std::min(text.find(',', start), text.size());
        size_t first = text.find_first_not_of(' ', start), last = text.find_last_not_of(' ', end - 1);
        if (first < end && end > start) globs.push_back(text.substr(first, last - first + 1));
        start = end + 1;
    }
    return globs;
}

bool Fp8Rule::takes(const NamedParameter& p) const {
    std::string layer = layer_name(p.name);
    auto matches = [&](const std::string& pattern) { return glob_match(pattern, layer); };
    return p.parameter->factor && std::any_of(layers.begin(), layers.end(), matches) &&
           std::none_of(keep.begin(), keep.end(), matches);
}

namespace {
thread_local Fp8Study* study = nullptr;
constexpr int64_t kComparedRows = 4096;
}  // namespace

Fp8Study::Fp8Study() : previous_(study) { study = this; }
Fp8Study::~Fp8Study() { study = previous_; }

void Fp8Study::add(const std::string& parameter, const Tensor& by_codes, const Tensor& by_value) {
    if (study == nullptr) return;
    auto some = [](const Tensor& x) {
        Tensor rows = x.reshape({-1, x.cols()});
        return rows.outer_slice(0, std::min(rows.dim(0), kComparedRows)).to(kCpu);
    };
    double error = relative_l2(some(by_codes), some(by_value));
    std::string name = layer_name(parameter);
    for (Layer& layer : study->layers) {
        if (layer.name != name) continue;
        layer.error = std::max(layer.error, error);
        return;
    }
    study->layers.push_back({name, error});
}

bool quantise(const NamedParameter& named, const Fp8Rule& rule, bool keep_value) {
    Parameter& p = *named.parameter;
    if (!p.value.defined() || !rule.takes(named)) return false;
    p.codes = quantise(p.value.reshape({p.shape[0], -1}));
    if (!keep_value) p.value = {};
    return true;
}

Tensor dense_value(const Parameter& p, DType dtype) {
    return p.codes.defined() ? dequantise(p.codes, dtype).reshape(p.shape) : p.value.to(dtype);
}

}  // namespace sana
