// Low-rank additions to a transformer's weights (LoRA): W + weight * alpha/r * B A, from the files of diffusers and PEFT,
// kohya's scripts and ComfyUI.
#pragma once

#include <string>
#include <vector>

#include "models/dit/dit.h"

namespace sana {

struct LoraChoice {
    std::string path;
    double weight = 1;
};

// "FILE", "FILE:0.8", several with commas between them.
std::vector<LoraChoice> parse_loras(const std::string& text);

struct LoraReport {
    int64_t matched = 0;                 // layers that got an addition
    std::vector<std::string> unmatched;  // names of layers in the file that the transformer does not have
};
// "style.safetensors: added to 32 layers with weight 0.8"
std::string text_of(const LoraChoice& lora, const LoraReport& report);

// Adds a file's layers to the tensors of a checkpoint (official or diffusers layout). Names of the file's layers:
//   with a prefix transformer. , diffusion_model. , base_model.model. , lora_transformer_ , lora_unet_ , or none;
//   of the diffusers or the official layout, with dots or underscores;
//   .lora_A / .lora_B, .lora_down / .lora_up, .lora.down / .lora.up; ranks scaled by .alpha, or by lora_alpha and r of the
//   metadata lora_adapter_metadata. An official layer that diffusers splits (qkv) is split here, and the reverse.
// InputError when nothing matches, or when a layer's shape does not fit.
LoraReport apply_lora(const LoraChoice& lora, const std::vector<NamedParameter>& parameters,
                      const DiTConfig& config, TensorMap& weights);

}  // namespace sana
