#include "pipeline/fp8_report.h"

#include <algorithm>
#include <utility>

namespace sana {

std::string globs_text(const std::vector<std::string>& globs) {
    std::string text;
    for (const std::string& glob : globs) text += (text.empty() ? "" : ",") + glob;
    return text;
}

std::string Fp8Report::keep() const {
    std::vector<std::string> names;
    for (const Layer& layer : layers) {
        if (layer.kept) names.push_back(layer.name);
    }
    return globs_text(names);
}

Fp8Report fp8_report(DiT& model, const Fp8Rule& rule, double threshold,
                     const std::function<Tensor()>& predict) {
    std::vector<NamedParameter> all = parameters(model), taken;
    for (const NamedParameter& p : all) {
        if (quantise(p, rule, true)) taken.push_back(p);
    }
    check_input(!taken.empty(),
                "no layer of this model would become fp8; the rule that says which is empty or keeps all");
    Fp8Report report;
    Tensor exact;
    {
        Fp8Study study;
        exact = predict().to(kCpu);
        for (const Fp8Study::Layer& layer : study.layers)
            report.layers.push_back({layer.name, layer.error, !(layer.error <= threshold)});
    }
    std::sort(report.layers.begin(), report.layers.end(), [](auto& a, auto& b) { return a.error > b.error; });

    std::vector<Tensor> values;
    for (const NamedParameter& p : taken) values.push_back(std::exchange(p.parameter->value, Tensor()));
    report.all = report.chosen = relative_l2(predict().to(kCpu), exact);
    bool some = false;
    for (size_t i = 0; i < taken.size(); ++i) {
        std::string name = layer_name(taken[i].name);
        bool kept =
            std::any_of(report.layers.begin(), report.layers.end(),
                        [&](const Fp8Report::Layer& layer) { return layer.kept && layer.name == name; });
        if (!kept) continue;
        some = true;
        taken[i].parameter->value = values[i];
        taken[i].parameter->codes = {};
    }
    if (some) report.chosen = relative_l2(predict().to(kCpu), exact);
    return report;
}

}  // namespace sana
