// Training of low-rank additions (LoRA) to the linear layers of a frozen transformer: W + alpha/r * B A.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nn/names.h"

namespace sana {

struct LoraOptions {
    int64_t rank = 0;  // 0: no LoRA
    double alpha = 0;  // 0: as the rank
    // Names of layers, * for any run of characters, several with commas between them: "blocks.*.attention.*"
    std::string layers = "blocks.*.attention.qkv,blocks.*.attention.out,blocks.*.cross.*";
};

// A starts as noise and B as zero, so that training begins at the model as it is.
class LoraAdapter {
public:
    // parameters: of the transformer, by its own names, with values. InputError when no linear layer matches.
    LoraAdapter(const std::vector<NamedParameter>& parameters, const LoraOptions& options, uint64_t seed,
                DType dtype, Device device);

    // The learned ones: "lora.NAME.A" [r,C] and "lora.NAME.B" [O,r].
    std::vector<NamedParameter> parameters();

    // Gives the transformer its weights with the additions of now; under a tape, gradients pass to A and B.
    void apply();
    void remove();  // the frozen weights again

    // pytorch_lora_weights.safetensors as diffusers and PEFT read it. A layer that diffusers splits is written in parts.
    // value(i): of parameters()[i], fp32 on the host.
    void write(const std::string& folder, const CheckpointNames& names,
               const std::function<Tensor(size_t)>& value) const;

private:
    struct Layer {
        std::string name;
        Parameter* target;
        Tensor frozen;
        std::unique_ptr<Parameter> a, b;
    };
    std::vector<Layer> layers_;
    LoraOptions options_;
};

}  // namespace sana
