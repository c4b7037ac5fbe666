#include "pipeline/model_folder.h"

#include <algorithm>
#include <filesystem>

#include "core/hash.h"
#include "io/checkpoint.h"
#include "io/mmap.h"
#include "io/text_file.h"
#include "pipeline/lora.h"

namespace sana {

namespace {

namespace fs = std::filesystem;

JsonConfig read_config(const std::string& path, const std::string& what) {
    check_input(file_exists(path), path, ": is missing; it describes the ", what,
                ". A SANA-Video model in the diffusers layout has it (docs/models.md says where to get one)");
    return JsonConfig(read_json_text(path), path);
}

std::vector<std::string> weight_files(const std::string& path) {
    if (!is_folder(path)) return {path};
    std::vector<std::string> files;
    for (const auto& entry : fs::directory_iterator(path)) {
        std::string extension = entry.path().extension().string();
        if (extension == ".safetensors" || extension == ".pth") files.push_back(entry.path().string());
    }
    std::sort(files.begin(), files.end());
    return files;
}

std::string fingerprint(const std::string& path) {
    constexpr int64_t kWhole = int64_t{64} << 20, kSample = 1 << 20, kSamples = 16;
    auto file = MappedFile::open(path);
    Sha256 hash;
    int64_t bytes = file->bytes();
    hash.update(&bytes, sizeof bytes);
    if (bytes <= kWhole) {
        hash.update(file->data(), static_cast<size_t>(bytes));
    } else {
        for (int64_t i = 0; i < kSamples; ++i) {
            hash.update(file->data() + (bytes - kSample) * i / (kSamples - 1), static_cast<size_t>(kSample));
        }
    }
    return hash.hex().substr(0, 16);
}

void fill(const std::vector<NamedParameter>& parameters, const CheckpointNames& names,
          const TensorMap& weights, DType dtype, const std::string& path, Device device,
          const std::function<void(const NamedParameter&)>& loaded = {}) {
    load(parameters, names, weights, dtype, path, device, loaded);
    // What was turned or converted on its way has left free blocks of many sizes behind.
    if (device != kCpu) {
        release_cached(device);
        release_cached(kCpu);
    }
}

void draw_part(const std::vector<NamedParameter>& parameters, uint64_t seed, DType dtype, Device device) {
    draw(parameters, seed, dtype, device);
    release_cached(device);  // drawn in fp32
}

}  // namespace

TensorMap read_weights(const std::string& path, std::string* file) {
    Checkpoint checkpoint = read_checkpoint(path);
    if (file != nullptr) *file = path;
    return std::move(checkpoint.tensors);
}

ModelFolder::ModelFolder(const ModelPaths& paths) : paths_(paths) {
    check_input(
        !paths_.folder.empty(),
        "no model given; use --model FOLDER (sana init makes one, docs/models.md says where to get one)");
    check_input(is_folder(paths_.folder), paths_.folder,
                ": no such folder; --model names a folder in the diffusers layout");
    // A transformer file of its own still has the folder's config.
    bool own_folder = is_folder(paths_.transformer);
    dit = DiTConfig::from_json(
        read_config((own_folder ? paths_.transformer : part("transformer")) + "/config.json", "transformer"));
    text = Gemma2Config::from_json(read_config(part("text_encoder/config.json"), "text encoder"));
    vae = vae_config_from_json(read_config(part("vae/config.json"), "autoencoder"));
    read_index();
    read_scheduler();
    read_prompt_template();
    check_parts();
    size_rules = rules_of(shape_of(vae), dit);
}

ModelFolder::ModelFolder(const RandomModel& model)
    : dit(model.dit), text(model.text), vae(model.vae), random_(model) {
    paths_.folder = "a random model";
    check_parts();
    size_rules = rules_of(shape_of(vae), dit);
}

SizeRules rules_of(const VaeShape& vae, const DiTConfig& dit) {
    SizeRules rules;
    rules.multiple = vae.spatial_factor * std::max(dit.patch[1], dit.patch[2]);
    rules.temporal = vae.temporal_factor * dit.patch[0];
    rules.largest_side = std::min<int64_t>(16384, dit.rope_max_seq_len * rules.multiple);
    rules.most_frames = (dit.rope_max_seq_len * dit.patch[0] - 1) * vae.temporal_factor + 1;
    return rules;
}

void ModelFolder::check_parts() const {
    VaeShape shape = shape_of(vae);
    check_input(dit.in_channels == shape.latent_channels && dit.out_channels == shape.latent_channels,
                paths_.folder, ": the transformer works on ", dit.in_channels, " -> ", dit.out_channels,
                " latent channels, the autoencoder has ", shape.latent_channels,
                "; the parts do not belong together");
    check_input(dit.caption_channels == text.hidden, paths_.folder,
                ": the transformer reads text states of width ", dit.caption_channels,
                ", the text encoder makes ", text.hidden, "; the parts do not belong together");
    check_input(dit.patch[0] == 1, paths_.folder, ": a patch of ", dit.patch[0],
                " latent frames is not supported");
}

void ModelFolder::read_index() {
    std::string path = part("model_index.json");
    if (!file_exists(path)) return;
    JsonConfig own = read_config(path, "model").object("_sana");
    trained_on = own.text("trained_on", "");
    JsonConfig values = own.object("defaults");
    for (const char* name : {"width", "height", "frames", "steps"})
        if (values.has(name)) defaults[name] = join(values.integer(name, 0, 1, 1 << 20));
    for (const char* name : {"fps", "guidance"})
        if (values.has(name)) defaults[name] = join(values.number(name, 0, 0, 1000));
}

void ModelFolder::read_scheduler() {
    std::string path = part("scheduler/scheduler_config.json");
    if (!file_exists(path)) return;
    JsonConfig json = read_config(path, "sampler");
    std::string name = json.text("_class_name", "DPMSolverMultistepScheduler");
    if (name == "DPMSolverMultistepScheduler") {
        sampler = SamplerKind::dpm_solver;
    } else if (name == "UniPCMultistepScheduler") {
        sampler = SamplerKind::unipc;
    } else if (name == "FlowMatchEulerDiscreteScheduler") {
        sampler = SamplerKind::flow_euler;
    } else {
        throw InputError(json.error(
            "_class_name",
            "is " + name + "; DPMSolverMultistep, UniPCMultistep and FlowMatchEulerDiscrete are supported"));
    }
    flow_shift =
        json.number(sampler == SamplerKind::flow_euler ? "shift" : "flow_shift", flow_shift, 1e-3, 1000);
}

void ModelFolder::read_prompt_template() {
    if (paths_.prompt_template == "none") return;
    if (!paths_.prompt_template.empty()) {
        prompt_template = load_prompt_template(paths_.prompt_template);
        return;
    }
    for (const char* name : {"prompt_template.yaml", "prompt_template.json", "prompt_template.txt"}) {
        if (file_exists(part(name))) {
            prompt_template = load_prompt_template(part(name));
            return;
        }
    }
    // A YAML of the official repository put into the folder.
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(paths_.folder)) {
        std::string extension = entry.path().extension().string();
        bool yaml = extension == ".yaml" || extension == ".yml";
        if (yaml && read_text_file(entry.path().string()).find("chi_prompt") != std::string::npos)
            found.push_back(entry.path().string());
    }
    check_input(found.size() <= 1, paths_.folder,
                ": more than one YAML with a chi_prompt; choose with --prompt-template FILE");
    if (!found.empty()) prompt_template = load_prompt_template(found[0]);
}

DiT ModelFolder::load_transformer(DType dtype, Device device, const Fp8Rule& fp8) const {
    if (random_) {
        DiT drawn(dit);
        draw_part(parameters(drawn), random_->seed, dtype, device);
        for (const NamedParameter& p : parameters(drawn)) quantise(p, fp8);
        return drawn;
    }
    std::string path = paths_.transformer.empty() ? part("transformer") : paths_.transformer;
    TensorMap weights = read_weights(path);
    DiT model(dit);
    for (const LoraChoice& lora : parse_loras(paths_.loras)) {
        LoraReport report = apply_lora(lora, parameters(model), dit, weights);
        if (note) note(text_of(lora, report));
    }
    CheckpointNames names = looks_official(weights) ? dit_official_names() : dit_diffusers_names(dit);
    fill(parameters(model), names, weights, dtype, path, device,
         [&](const NamedParameter& p) { quantise(p, fp8); });
    return model;
}

Gemma2 ModelFolder::load_text_encoder(std::optional<DType> dtype, Device device) const {
    if (random_) {
        Gemma2 drawn(text);
        draw_part(parameters(drawn), random_->seed, dtype.value_or(random_->text_dtype), device);
        return drawn;
    }
    std::string path = part("text_encoder");
    TensorMap weights = read_weights(path);
    Gemma2 model(text);
    CheckpointNames names = gemma2_names(weights);
    if (!dtype) {
        auto table = weights.find(checkpoint_keys(names, "embed_tokens.weight")[0]);
        bool bf16_stored = table != weights.end() && table->second.dtype() == DType::BF16;
        dtype = bf16_stored ? DType::BF16 : DType::F32;
    }
    fill(parameters(model), names, weights, *dtype, path, device);
    return model;
}

Vae ModelFolder::load_vae(VaeParts parts, DType dtype, Device device) const {
    if (random_) {
        Vae drawn(vae, parts);
        draw_part(drawn.parameters(), random_->seed, dtype, device);
        return drawn;
    }
    std::string path = part("vae");
    TensorMap weights = read_weights(path);
    Vae model(vae, parts);
    fill(model.parameters(), model.names(weights), weights, dtype, path, device);
    return model;
}

Tokenizer ModelFolder::load_tokenizer() const {
    if (random_) return Tokenizer::parse(random_->tokenizer, paths_.folder);
    return Tokenizer::load(paths_.tokenizer.empty() ? part("tokenizer") : paths_.tokenizer);
}

std::vector<std::pair<std::string, std::string>> ModelFolder::fingerprints() const {
    std::vector<std::pair<std::string, std::string>> out;
    check(!random_, "a random model has no files");
    for (const char* name : {"transformer", "text_encoder", "vae"}) {
        bool own = std::string(name) == "transformer" && !paths_.transformer.empty();
        std::string all;
        for (const std::string& file : weight_files(own ? paths_.transformer : part(name)))
            all += fingerprint(file);
        out.emplace_back(name, all.size() > 16 ? sha256_hex(all).substr(0, 16) : all);
    }
    return out;
}

}  // namespace sana
