#include "pipeline/presets.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "io/safetensors.h"
#include "io/text_file.h"

namespace sana {

namespace {

std::vector<bool> alternating(int64_t layers) {
    std::vector<bool> out;
    for (int64_t i = 0; i < layers; ++i) out.push_back(i % 2 == 0);
    return out;
}

Gemma2Config gemma_2b() {
    Gemma2Config c;
    c.stored_bf16 = true;
    c.sliding = alternating(c.layers);
    return c;
}

DiTConfig sana_2b() {
    DiTConfig c;
    c.mlp_ratio = 3;
    return c;
}

std::vector<Preset> make_presets() {
    std::vector<Preset> list;
    Preset tiny{
        "tiny",    "a model of seconds, for a first run and for tests", {}, {}, WanVaeConfig::released(),
        DType::F32};
    tiny.dit.in_channels = tiny.dit.out_channels = 8;
    tiny.dit.heads = tiny.dit.cross_heads = 4;
    tiny.dit.head_dim = tiny.dit.cross_head_dim = 24;
    tiny.dit.layers = 4;
    tiny.dit.mlp_ratio = 3;
    tiny.dit.caption_channels = tiny.text.hidden = 64;
    tiny.text.vocabulary = 512;
    tiny.text.inner = 128;
    tiny.text.layers = 2;
    tiny.text.heads = 4;
    tiny.text.kv_heads = 2;
    tiny.text.head_dim = 16;
    tiny.text.query_scalar = 16;
    tiny.text.sliding = alternating(2);
    auto& vae = std::get<WanVaeConfig>(tiny.vae);
    vae.base = vae.decoder_base = 16;
    vae.latent_channels = 8;
    vae.residual_blocks = 1;
    vae.latents_mean.assign(8, 0);
    vae.latents_std.assign(8, 1);
    list.push_back(tiny);
    list.push_back({"sana-video-2b-480p", "the released 480p model", sana_2b(), gemma_2b(),
                    WanVaeConfig::released(), DType::BF16});
    Preset hd{"sana-video-2b-720p", "the released 720p model", sana_2b(),
              gemma_2b(),           Ltx2VaeConfig::released(), DType::BF16};
    hd.dit.in_channels = hd.dit.out_channels = 128;
    hd.dit.patch = {1, 1, 1};
    hd.dit.sample_size = 22;
    list.push_back(hd);
    return list;
}

// A tokenizer of bytes and printable characters, without merges.
std::string byte_tokenizer() {
    nlohmann::ordered_json vocabulary = nlohmann::ordered_json::object();
    int64_t next = 0;
    for (const char* special : {"<pad>", "<eos>", "<bos>", "<unk>"}) vocabulary[special] = next++;
    for (int i = 0; i < 256; ++i) {
        char name[8];
        std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(i));
        vocabulary[name] = next++;
    }
    for (char c = '!'; c <= '~'; ++c) vocabulary[std::string(1, c)] = next++;
    vocabulary["\u2581"] = next++;
    nlohmann::ordered_json begin{{"SpecialToken", {{"id", "<bos>"}, {"type_id", 0}}}};
    nlohmann::ordered_json json{
        {"version", "1.0"},
        {"added_tokens", nlohmann::ordered_json::array()},
        {"normalizer", {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}}},
        {"pre_tokenizer", nullptr},
        {"post_processor",
         {{"type", "TemplateProcessing"},
          {"single", {begin, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
          {"pair",
           {begin,
            {{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
            {{"Sequence", {{"id", "B"}, {"type_id", 1}}}}}},
          {"special_tokens", {{"<bos>", {{"id", "<bos>"}, {"ids", {2}}, {"tokens", {"<bos>"}}}}}}}},
        {"model",
         {{"type", "BPE"},
          {"unk_token", "<unk>"},
          {"fuse_unk", true},
          {"byte_fallback", true},
          {"vocab", vocabulary},
          {"merges", nlohmann::ordered_json::array()}}},
    };
    for (int64_t id = 0; id < 4; ++id) {
        const char* names[] = {"<pad>", "<eos>", "<bos>", "<unk>"};
        json["added_tokens"].push_back({{"id", id},
                                        {"content", names[id]},
                                        {"single_word", false},
                                        {"lstrip", false},
                                        {"rstrip", false},
                                        {"normalized", false},
                                        {"special", true}});
    }
    return json.dump() + "\n";
}

std::string model_index(const Preset& preset) {
    nlohmann::ordered_json json{
        {"_class_name", "SanaVideoPipeline"},
        {"scheduler", {"diffusers", "DPMSolverMultistepScheduler"}},
        {"text_encoder", {"transformers", "Gemma2Model"}},
        {"tokenizer", {"transformers", "GemmaTokenizerFast"}},
        {"transformer", {"diffusers", "SanaVideoTransformer3DModel"}},
        {"vae", {"diffusers", std::string(class_name(preset.vae))}},
    };
    return json.dump(2) + "\n";
}

std::string scheduler_config() {
    nlohmann::ordered_json json{
        {"_class_name", "DPMSolverMultistepScheduler"},
        {"algorithm_type", "dpmsolver++"},
        {"final_sigmas_type", "zero"},
        {"flow_shift", 8.0},
        {"lower_order_final", true},
        {"num_train_timesteps", 1000},
        {"prediction_type", "flow_prediction"},
        {"solver_order", 2},
        {"solver_type", "midpoint"},
        {"use_flow_sigmas", true},
    };
    return json.dump(2) + "\n";
}

}  // namespace

const std::vector<Preset>& presets() {
    static const std::vector<Preset> list = make_presets();
    return list;
}

const Preset& find_preset(const std::string& name) {
    std::string names;
    for (const Preset& preset : presets()) {
        if (preset.name == name) return preset;
        names += (names.empty() ? "" : ", ") + preset.name;
    }
    fail_input("there is no preset '", name, "'; there are ", names);
}

ModelFolder random_model(const Preset& preset, uint64_t seed) {
    return ModelFolder(
        RandomModel{preset.dit, preset.text, preset.vae, preset.text_dtype, seed, byte_tokenizer()});
}

void write_random_model(const Preset& preset, const InitOptions& options,
                        const std::function<void(const std::string&)>& note) {
    check_input(!options.folder.empty(), "no folder given; use --out FOLDER");
    for (const std::string& part : options.parts) {
        check_input(part == "transformer" || part == "text_encoder" || part == "vae", "there is no part '",
                    part, "'; transformer, text_encoder and vae");
    }
    auto wanted = [&](const char* part) {
        return std::find(options.parts.begin(), options.parts.end(), part) != options.parts.end();
    };
    auto write_part = [&](const char* part, const char* base, const std::string& config,
                          const std::vector<NamedParameter>& parameters, const CheckpointNames& names,
                          DType dtype) {
        std::string folder = options.folder + "/" + part;
        make_folders(folder);
        write_text_file(folder + "/config.json", config);
        if (!wanted(part)) return;
        draw(parameters, options.seed, dtype);
        write_sharded(folder, base, save(parameters, names), int64_t{5} << 30);
        note(join(part, ": ", count(parameters), " random parameters, ", dtype));
    };
    // A part's freed blocks go back to the system: the next part is of other sizes.
    set_cache_limit(kCpu, int64_t{256} << 20);
    check_input(!file_exists(options.folder + "/model_index.json"), options.folder,
                ": holds a model already; choose another folder");
    make_folders(options.folder + "/scheduler");
    make_folders(options.folder + "/tokenizer");
    {
        DiT model(preset.dit);
        write_part("transformer", "diffusion_pytorch_model", preset.dit.to_json(), parameters(model),
                   dit_diffusers_names(preset.dit), options.dtype);
    }
    {
        Gemma2 model(preset.text);
        write_part("text_encoder", "model", preset.text.to_json(), parameters(model), gemma2_names({}),
                   preset.text_dtype);
    }
    {
        Vae model(preset.vae, VaeParts::both);
        write_part("vae", "diffusion_pytorch_model", to_json(preset.vae), model.parameters(), model.names(),
                   DType::F32);
    }
    write_text_file(options.folder + "/scheduler/scheduler_config.json", scheduler_config());
    write_text_file(options.folder + "/tokenizer/tokenizer.json", byte_tokenizer());
    write_text_file(options.folder + "/model_index.json", model_index(preset));
}

}  // namespace sana
