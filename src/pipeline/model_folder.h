// A model on disk: the diffusers folder (model_index.json, transformer/, vae/, text_encoder/, tokenizer/, scheduler/),
// optionally with single parts taken from elsewhere. Opening reads configs only; weights are mapped when a part is built.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "models/dit/dit.h"
#include "models/gemma2/gemma2.h"
#include "pipeline/resolution.h"
#include "pipeline/vae.h"
#include "sampling/sampler.h"
#include "text/prompt.h"
#include "text/tokenizer.h"

namespace sana {

// Where the parts come from; empty: from the folder.
struct ModelPaths {
    std::string folder;
    std::string transformer;      // a .pth or .safetensors file, or a folder with config.json
    std::string tokenizer;        // a tokenizer.json or its folder
    std::string prompt_template;  // see load_prompt_template(); "none": no instruction
    std::string loras;            // additions to the transformer: see parse_loras()
};

// A model without files: its weights are drawn when a part is built.
struct RandomModel {
    DiTConfig dit;
    Gemma2Config text;
    VaeConfig vae;
    DType text_dtype = DType::F32;  // "as stored"
    uint64_t seed = 0;
    std::string tokenizer;  // the text of a tokenizer.json
};

// What a transformer on the latents of an autoencoder needs of a size and a length.
SizeRules rules_of(const VaeShape& vae, const DiTConfig& dit);

class ModelFolder {
public:
    // InputError when a config is missing or bad, or when the parts do not belong together.
    explicit ModelFolder(const ModelPaths& paths);
    explicit ModelFolder(const RandomModel& model);

    const ModelPaths& paths() const { return paths_; }
    DiTConfig dit;
    Gemma2Config text;
    VaeConfig vae;
    SamplerKind sampler = SamplerKind::dpm_solver;
    double flow_shift = 8;
    PromptTemplate prompt_template;
    SizeRules size_rules;
    // What model_index.json says in "_sana": values for parameters of a generation that are not given, and what the model
    // was trained on ("drawn world": the clips of sana data draw).
    std::map<std::string, std::string> defaults;
    std::string trained_on;
    std::function<void(const std::string&)> note = {};  // told how much of a LoRA file belongs to the model

    // Weights go to the device one by one; the host keeps no copy.
    // fp8: layers that are quantised as they arrive.
    DiT load_transformer(DType dtype, Device device = kCpu, const Fp8Rule& fp8 = {}) const;
    // none: as stored (fp16 becomes fp32, whose range Gemma-2 needs).
    Gemma2 load_text_encoder(std::optional<DType> dtype, Device device = kCpu) const;
    Vae load_vae(VaeParts parts, DType dtype, Device device = kCpu) const;
    Tokenizer load_tokenizer() const;

    // One line a part of the model: file names and a fingerprint (SHA-256 over the header, length and samples of the
    // data of each weights file; whole for files up to 64 MiB).
    std::vector<std::pair<std::string, std::string>> fingerprints() const;

private:
    void read_index();
    void read_scheduler();
    void read_prompt_template();
    void check_parts() const;
    std::string part(const char* name) const { return paths_.folder + "/" + name; }

    ModelPaths paths_;
    std::optional<RandomModel> random_;
};

// The weights of a part: a folder's files by the base names in use, or a single file.
TensorMap read_weights(const std::string& path, std::string* file = nullptr);

}  // namespace sana
