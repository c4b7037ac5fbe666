// sana convert, sana init.
#include <memory>

#include "apps/console.h"
#include "io/checkpoint.h"
#include "io/pth.h"
#include "io/safetensors.h"
#include "io/text_file.h"
#include "pipeline/lora.h"
#include "pipeline/presets.h"

namespace sana::apps {

namespace {

struct ConvertOptions {
    std::string in, out, config, dtype;
    std::vector<std::string> loras;
    int64_t head_dim = 112;
};

DiTConfig config_for(const ConvertOptions& o, const TensorMap& tensors) {
    std::string beside = is_folder(o.in) ? o.in + "/config.json" : parent_folder(o.in) + "/config.json";
    if (!o.config.empty()) return DiTConfig::from_json(JsonConfig(read_json_text(o.config), o.config));
    if (looks_official(tensors)) return infer_dit_config(tensors, o.head_dim, o.in);
    check_input(file_exists(beside), o.in, ": its config.json is missing; give it with --config FILE");
    return DiTConfig::from_json(JsonConfig(read_json_text(beside), beside));
}

void convert(const ConvertOptions& o, const Common& common) {
    Console console(common);
    check_input(!file_exists(o.out), o.out, ": is there already; choose another name");
    Checkpoint file = read_checkpoint(o.in);
    bool from_official = looks_official(file.tensors), to_official = o.out.ends_with(".pth");
    check_input(from_official || file.tensors.count("patch_embedding.weight") != 0, o.in,
                ": is no SANA-Video transformer");
    check_input(
        from_official != to_official || !o.dtype.empty() || !o.loras.empty(), o.in, ": is in the ",
        to_official ? "official" : "diffusers",
        " layout already; give --dtype to change the dtype, --lora to add one, or another kind of output "
        "(.pth or a folder)");
    std::optional<DType> dtype;
    if (!o.dtype.empty()) {
        dtype = parse_dtype(o.dtype);
        check_input(dtype && is_float(*dtype) && size_of(*dtype) >= 2 && *dtype != DType::F64, "--dtype: '",
                    o.dtype, "' is not one of fp32, bf16, fp16");
    }
    DiTConfig config = config_for(o, file.tensors);
    DiT model(config);
    auto list = parameters(model);
    for (const std::string& text : o.loras) {
        for (const LoraChoice& lora : parse_loras(text))
            console.note(text_of(lora, apply_lora(lora, list, config, file.tensors)));
    }
    load(list, from_official ? dit_official_names() : dit_diffusers_names(config), file.tensors, dtype, o.in);
    if (to_official) {
        write_pth(o.out, save(list, dit_official_names()));
    } else {
        make_folders(o.out);
        write_sharded(o.out, "diffusion_pytorch_model", save(list, dit_diffusers_names(config)),
                      int64_t{5} << 30);
        write_text_file(o.out + "/config.json", config.to_json());
    }
    console.event("done", join("\"file\": ", json_string(o.out), ", \"parameters\": ", count(list)));
    console.line(join(o.out, ": ", count(list), " parameters in the ", to_official ? "official" : "diffusers",
                      " layout"));
}

}  // namespace

void add_convert(CLI::App& app, Common& common) {
    CLI::App* command = app.add_subcommand(
        "convert", "Turn transformer weights from the official .pth into a diffusers folder, and back");
    command->footer(
        "Examples:\n"
        "  sana convert SANA_Video_2B_480p.pth MODEL/transformer\n"
        "  sana convert MODEL/transformer mine.pth --dtype bf16\n"
        "  sana convert MODEL/transformer STYLED/transformer --lora style.safetensors:0.8");
    auto o = std::make_shared<ConvertOptions>();
    command->add_option("in", o->in, "Official .pth, .safetensors file or transformer folder")
        ->required()
        ->type_name("IN");
    command
        ->add_option("out", o->out, "A name ending in .pth (official layout) or a folder (diffusers layout)")
        ->required()
        ->type_name("OUT");
    command
        ->add_option("--config", o->config,
                     "config.json of the transformer, when the weights alone do not tell")
        ->type_name("FILE");
    command
        ->add_option("--head-dim", o->head_dim,
                     "Head width of an official checkpoint (default 112, that of every released model)")
        ->type_name("N")
        ->check(CLI::Range(2, 4096));
    command->add_option("--dtype", o->dtype, "fp32, bf16 or fp16 (default: as stored)")->type_name("TYPE");
    command
        ->add_option("--lora", o->loras,
                     "LoRA file to add to the weights for good, with its weight; may be given again")
        ->type_name("FILE[:WEIGHT]");
    command->callback([=, &common] { convert(*o, common); });
}

void add_init(CLI::App& app, Common& common) {
    CLI::App* command = app.add_subcommand(
        "init", "Make a model folder with random weights: for a first run, tests and benchmarks");
    std::string list;
    for (const Preset& preset : presets()) list += "\n  " + preset.name + ": " + preset.what;
    command->footer("Presets:" + list + "\nA random model makes noise, not pictures.");
    auto preset = std::make_shared<std::string>("tiny");
    auto options = std::make_shared<InitOptions>();
    auto dtype = std::make_shared<std::string>("fp32");
    command->add_option("--preset", *preset, "Which model (default tiny)")->type_name("NAME");
    command->add_option("--out", options->folder, "Folder to make")->required()->type_name("FOLDER");
    command->add_flag_callback(
        "--random", [] {}, "Random weights (the only kind there is)");
    command->add_option("--seed", options->seed, "The same seed gives the same weights")->type_name("N");
    command->add_option("--dtype", *dtype, "Of the transformer: fp32, bf16 or fp16 (default fp32)")
        ->type_name("TYPE");
    command
        ->add_option("--parts", options->parts,
                     "Parts that get weights: transformer text_encoder vae (default all)")
        ->type_name("PART")
        ->expected(1, 3);
    command->callback([=, &common] {
        Console console(common);
        std::optional<DType> type = parse_dtype(*dtype);
        check_input(type && is_float(*type) && size_of(*type) >= 2 && *type != DType::F64, "--dtype: '",
                    *dtype, "' is not one of fp32, bf16, fp16");
        options->dtype = *type;
        write_random_model(find_preset(*preset), *options,
                           [&](const std::string& text) { console.note(text); });
        console.event("done", "\"file\": " + json_string(options->folder));
        console.line(join(options->folder, ": a random model (", *preset, "); its videos are noise"));
    });
}

}  // namespace sana::apps
