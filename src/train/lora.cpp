#include "train/lora.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "core/scope.h"
#include "io/safetensors.h"
#include "io/text_file.h"
#include "ops/layout.h"
#include "ops/linear.h"
#include "ops/pointwise.h"

namespace sana {

namespace {

constexpr std::string_view kEnding = ".weight";

std::vector<std::string> patterns_of(const std::string& text) {
    std::vector<std::string> out;
    for (size_t at = 0; at <= text.size();) {
        size_t end = std::min(text.find(',', at), text.size());
        if (end > at) out.push_back(text.substr(at, end - at));
        at = end + 1;
    }
    return out;
}

}  // namespace

LoraAdapter::LoraAdapter(const std::vector<NamedParameter>& parameters, const LoraOptions& options,
                         uint64_t seed, DType dtype, Device device)
    : options_(options) {
    if (options_.alpha <= 0) options_.alpha = static_cast<double>(options_.rank);
    std::vector<std::string> patterns = patterns_of(options.layers);
    for (const NamedParameter& p : parameters) {
        if (!p.name.ends_with(kEnding) || p.parameter->shape.rank() != 2) continue;
        std::string layer = p.name.substr(0, p.name.size() - kEnding.size());
        bool chosen = std::any_of(patterns.begin(), patterns.end(),
                                  [&](const std::string& pattern) { return glob_match(pattern, layer); });
        if (!chosen) continue;
        int64_t out = p.parameter->shape[0], in = p.parameter->shape[1];
        Layer l{layer, p.parameter, p.parameter->value, std::make_unique<Parameter>(),
                std::make_unique<Parameter>()};
        *l.a = same_layout({options_.rank, in}, {.std = 1 / std::sqrt(3 * static_cast<double>(in))});
        *l.b = same_layout({out, options_.rank}, {});
        layers_.push_back(std::move(l));
    }
    check_input(!layers_.empty(), "lora-layers is '", options.layers,
                "', which matches no linear layer of the transformer; names are like blocks.0.attention.qkv");
    draw(this->parameters(), seed, dtype, device);
}

std::vector<NamedParameter> LoraAdapter::parameters() {
    std::vector<NamedParameter> out;
    for (Layer& l : layers_) {
        out.push_back({"lora." + l.name + ".A", l.a.get()});
        out.push_back({"lora." + l.name + ".B", l.b.get()});
    }
    return out;
}

void LoraAdapter::apply() {
    double scale = options_.alpha / static_cast<double>(options_.rank);
    for (Layer& l : layers_) {
        Tensor product = linear(l.b->value, permute(l.a->value, {1, 0}));
        l.target->value = combine({{1, l.frozen}, {scale, product}}).named(l.frozen.name());
    }
}

void LoraAdapter::remove() {
    for (Layer& l : layers_) l.target->value = l.frozen;
}

void LoraAdapter::write(const std::string& folder, const CheckpointNames& names,
                        const std::function<Tensor(size_t)>& value) const {
    TensorMap tensors;
    std::set<std::string> modules;
    for (size_t i = 0; i < layers_.size(); ++i) {
        Tensor a = value(2 * i), b = value(2 * i + 1);
        std::vector<std::string> keys = checkpoint_keys(names, layers_[i].name + std::string(kEnding));
        int64_t rows = b.dim(0) / static_cast<int64_t>(keys.size());
        // A layer that is a 1x1 convolution in the checkpoint keeps its trailing ones.
        int trailing = static_cast<int>(layers_[i].target->stored.rank()) - 2;
        auto shaped = [&](const Tensor& x) {
            Shape shape = x.shape();
            for (int k = 0; k < trailing; ++k) shape.push_back(1);
            return x.clone().reshape(shape);
        };
        for (size_t k = 0; k < keys.size(); ++k) {
            std::string module = keys[k].substr(0, keys[k].size() - kEnding.size());
            tensors["transformer." + module + ".lora_A.weight"] = shaped(a);
            tensors["transformer." + module + ".lora_B.weight"] =
                shaped(b.outer_slice(static_cast<int64_t>(k) * rows, rows));
            modules.insert(module);
        }
    }
    nlohmann::ordered_json adapter{{"transformer.peft_type", "LORA"},
                                   {"transformer.r", options_.rank},
                                   {"transformer.lora_alpha", options_.alpha},
                                   {"transformer.lora_dropout", 0.0},
                                   {"transformer.bias", "none"},
                                   {"transformer.target_modules", modules}};
    make_folders(folder);
    write_safetensors(folder + "/pytorch_lora_weights.safetensors", tensors,
                      {{"format", "pt"}, {"lora_adapter_metadata", adapter.dump()}});
}

}  // namespace sana
