#include "pipeline/lora.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>

#include "io/checkpoint.h"
#include "ops/layout.h"
#include "ops/linear.h"
#include "ops/pointwise.h"

namespace sana {

namespace {

struct Layer {
    Tensor down, up;   // [r,C,...], [O,r,...]
    double alpha = 0;  // 0: as the rank
};

// Rows of a whole parameter, as the concatenated checkpoint tensors have it.
struct Place {
    const Parameter* parameter = nullptr;
    size_t part = 0, parts = 1;
    std::vector<std::string> keys;  // of the whole, in the checkpoint at hand
};

std::string underscored(std::string name) {
    std::replace(name.begin(), name.end(), '.', '_');
    return name;
}

std::string without_prefix(const std::string& name) {
    for (const char* prefix : {"base_model.model.", "transformer.", "diffusion_model.", "lora_transformer_",
                               "lora_unet_", "model."}) {
        if (name.starts_with(prefix)) return without_prefix(name.substr(std::string(prefix).size()));
    }
    return name;
}

// Splits "layer.lora_A.weight" into the layer and what the tensor is: 'A', 'B' or 'a' (alpha); 0 when it is none.
char role_of(const std::string& key, std::string& layer) {
    static const std::pair<const char*, char> endings[] = {
        {".lora_A.weight", 'A'},         {".lora_B.weight", 'B'},    {".lora_A.default.weight", 'A'},
        {".lora_B.default.weight", 'B'}, {".lora_down.weight", 'A'}, {".lora_up.weight", 'B'},
        {".lora.down.weight", 'A'},      {".lora.up.weight", 'B'},   {".alpha", 'a'}};
    for (const auto& [ending, role] : endings) {
        if (!key.ends_with(ending)) continue;
        layer = key.substr(0, key.size() - std::string(ending).size());
        return role;
    }
    return 0;
}

// Every name that a layer may have, of both layouts.
std::map<std::string, Place> places_of(const std::vector<NamedParameter>& parameters, const DiTConfig& config,
                                       const CheckpointNames& here) {
    std::map<std::string, Place> out;
    for (const CheckpointNames& names : {dit_diffusers_names(config), dit_official_names()}) {
        for (const NamedParameter& p : parameters) {
            if (!p.name.ends_with(".weight") || p.parameter->stored.rank() < 2) continue;
            std::vector<std::string> theirs = checkpoint_keys(names, p.name);
            for (size_t i = 0; i < theirs.size(); ++i) {
                std::string layer = theirs[i].substr(0, theirs[i].size() - std::string(".weight").size());
                out[underscored(layer)] = {p.parameter, i, theirs.size(), checkpoint_keys(here, p.name)};
            }
        }
    }
    return out;
}

double default_scale(const Checkpoint& file, const std::string& path) {
    auto it = file.metadata.find("lora_adapter_metadata");
    if (it == file.metadata.end()) return 0;
    auto json = nlohmann::json::parse(it->second, nullptr, false);
    check_input(json.is_object(), path, ": its lora_adapter_metadata is no JSON object");
    for (const char* prefix : {"transformer.", ""}) {
        auto r = json.find(std::string(prefix) + "r"), alpha = json.find(std::string(prefix) + "lora_alpha");
        if (r == json.end() || alpha == json.end() || !r->is_number() || !alpha->is_number()) continue;
        check_input(r->get<double>() > 0, path, ": its lora_adapter_metadata has rank ", r->get<double>());
        return alpha->get<double>() / r->get<double>();
    }
    return 0;
}

void add_layer(const Layer& layer, double scale, const Place& place, const std::string& where,
               TensorMap& weights) {
    check_input(layer.down.defined() && layer.up.defined(), where, ": one of its two matrices is missing");
    int64_t rank = layer.down.dim(0), out = layer.up.dim(0),
            in = layer.down.numel() / std::max<int64_t>(1, rank);
    int64_t whole_rows = place.parameter->stored[0], rows = whole_rows / static_cast<int64_t>(place.parts);
    int64_t whole_cols = place.parameter->stored.numel() / whole_rows;
    check_input(layer.up.numel() == out * rank && out == rows && in == whole_cols, where, ": ",
                layer.up.shape(), " times ", layer.down.shape(), " does not fit a layer of ",
                Shape{rows, whole_cols});
    Tensor a = layer.down.to(DType::F32).contiguous().reshape({rank, in});
    Tensor b = layer.up.to(DType::F32).contiguous().reshape({out, rank});
    Tensor delta = linear(b, permute(a, {1, 0}));
    // Rows [first, first + rows) of the whole, over the tensors that hold the whole.
    int64_t first = static_cast<int64_t>(place.part) * rows,
            each = whole_rows / static_cast<int64_t>(place.keys.size());
    for (size_t k = 0; k < place.keys.size(); ++k) {
        int64_t start = static_cast<int64_t>(k) * each, low = std::max(first, start),
                high = std::min(first + rows, start + each);
        if (low >= high) continue;
        Tensor& stored = weights.at(place.keys[k]);
        Tensor sum = stored.to(DType::F32).clone().reshape({each, whole_cols});
        Tensor target = sum.outer_slice(low - start, high - low);
        copy(combine({{1, target}, {scale, delta.outer_slice(low - first, high - low)}}), target);
        stored = sum.reshape(stored.shape()).to(stored.dtype()).named(place.keys[k]);
    }
}

}  // namespace

std::vector<LoraChoice> parse_loras(const std::string& text) {
    std::vector<LoraChoice> out;
    for (size_t at = 0; at < text.size();) {
        size_t end = std::min(text.find(',', at), text.size());
        std::string one = text.substr(at, end - at);
        at = end + 1;
        if (one.empty()) continue;
        LoraChoice choice{one, 1};
        size_t colon = one.rfind(':');
        if (colon != std::string::npos && colon + 1 < one.size()) {
            const char *first = one.data() + colon + 1, *last = one.data() + one.size();
            auto [stop, error] = std::from_chars(first, last, choice.weight);
            if (error == std::errc() && stop == last) {
                choice.path = one.substr(0, colon);
            } else {
                choice.weight = 1;  // a colon of the path
            }
        }
        out.push_back(choice);
    }
    return out;
}

std::string text_of(const LoraChoice& lora, const LoraReport& report) {
    std::string rest = report.unmatched.empty() ? ""
                                                : join(", ", report.unmatched.size(),
                                                       " of it unknown, first ", report.unmatched[0]);
    return join(lora.path, ": added to ", report.matched, " layers with weight ", lora.weight, rest);
}

LoraReport apply_lora(const LoraChoice& lora, const std::vector<NamedParameter>& parameters,
                      const DiTConfig& config, TensorMap& weights) {
    Checkpoint file = read_checkpoint(lora.path);
    std::map<std::string, Layer> layers;
    LoraReport report;
    for (const auto& [key, tensor] : file.tensors) {
        std::string layer;
        char role = role_of(key, layer);
        if (role == 0) {
            report.unmatched.push_back(key);
        } else if (role == 'a') {
            check_input(tensor.numel() == 1, lora.path, ": ", key, " is ", tensor.shape(),
                        ", not one number");
            layers[layer].alpha = to_vector<double>(tensor)[0];
        } else {
            check_input(is_float(tensor.dtype()) && tensor.rank() >= 2 && tensor.numel() > 0, lora.path, ": ",
                        key, " is ", tensor, ", not a matrix");
            (role == 'A' ? layers[layer].down : layers[layer].up) = tensor;
        }
    }
    double scale = default_scale(file, lora.path);
    CheckpointNames here = looks_official(weights) ? dit_official_names() : dit_diffusers_names(config);
    std::map<std::string, Place> places = places_of(parameters, config, here);
    for (const auto& [name, layer] : layers) {
        auto it = places.find(underscored(without_prefix(name)));
        if (it == places.end()) {
            report.unmatched.push_back(name);
            continue;
        }
        double own = layer.alpha > 0 && layer.down.defined()
                         ? layer.alpha / static_cast<double>(layer.down.dim(0))
                         : (scale > 0 ? scale : 1);
        add_layer(layer, lora.weight * own, it->second, lora.path + ": " + name, weights);
        ++report.matched;
    }
    check_input(report.matched > 0, lora.path, ": none of its ", static_cast<int64_t>(layers.size()),
                " layers belongs to this transformer",
                report.unmatched.empty() ? std::string() : " (the first is " + report.unmatched[0] + ")",
                "; it was made for another model, or is no LoRA file");
    return report;
}

}  // namespace sana
