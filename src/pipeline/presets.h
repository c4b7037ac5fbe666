// Model configurations by name, for random models: tests, benchmarks, a first run without weights.
#pragma once

#include <string>
#include <vector>

#include "pipeline/model_folder.h"

namespace sana {

struct Preset {
    std::string name, what;
    DiTConfig dit;
    Gemma2Config text;
    VaeConfig vae;
    DType text_dtype = DType::F32;  // as released
};

const std::vector<Preset>& presets();
const Preset& find_preset(const std::string& name);  // InputError lists the names

// The model of a preset with random weights, without files.
ModelFolder random_model(const Preset& preset, uint64_t seed);

struct InitOptions {
    std::string folder;
    uint64_t seed = 0;
    DType dtype = DType::F32;  // of the transformer
    std::vector<std::string> parts = {"transformer", "text_encoder", "vae"};
};

// Writes a model folder with random weights. note: called with a line for each part written.
void write_random_model(const Preset& preset, const InitOptions& options,
                        const std::function<void(const std::string&)>& note);

}  // namespace sana
