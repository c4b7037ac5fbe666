// sana quantize: what 8-bit weights would cost a model.
#include <cstdio>
#include <memory>

#include "apps/console.h"
#include "core/memory.h"
#include "core/random.h"
#include "pipeline/fp8_report.h"
#include "pipeline/presets.h"

namespace sana::apps {

namespace {

struct QuantizeOptions {
    std::string model, transformer, preset, device = "auto", keep = globs_text(dit_fp8_rule().keep);
    bool report = false, random = false;
    double threshold = 0.06, timestep = 500;
    int64_t width = 256, height = 256, frames = 17, batch = 2, layers = 0;
    uint64_t seed = 0;
};

struct Subject {
    DiT dit;
    VaeShape vae;
    std::string name;
};

Subject open_model(const QuantizeOptions& o, Device device) {
    check_input(o.model.empty() != o.preset.empty(),
                "one of --model FOLDER and --preset NAME --random says which model");
    if (!o.model.empty()) {
        ModelFolder folder({.folder = o.model,
                            .transformer = o.transformer,
                            .tokenizer = {},
                            .prompt_template = "none",
                            .loras = {}});
        return {folder.load_transformer(DType::BF16, device), shape_of(folder.vae), o.model};
    }
    check_input(o.random, "--preset ", o.preset, " needs --random: a preset has no weights of its own");
    Preset preset = find_preset(o.preset);
    if (o.layers > 0) preset.dit.layers = o.layers;
    DiT dit(preset.dit);
    draw(parameters(dit), o.seed, DType::BF16, device);
    release_cached(device);
    return {std::move(dit), shape_of(preset.vae), o.preset + " with random weights"};
}

void quantize(const QuantizeOptions& o, const Common& common) {
    check_input(o.report,
                "nothing to do; --report prints what fp8 would cost (sana generate --precision fp8 uses it)");
    Console console(common);
    Device device = find_device(o.device);
    Subject subject = open_model(o, device);
    DiT& dit = subject.dit;
    const DiTConfig& config = dit.config();
    Shape latents_shape{o.batch, (o.frames - 1) / subject.vae.temporal_factor + 1,
                        o.height / subject.vae.spatial_factor, o.width / subject.vae.spatial_factor,
                        config.in_channels};
    Tensor latents = randn_philox(latents_shape, o.seed, 1, device),
           times = full({o.batch}, o.timestep, DType::F32, device);
    TextContext text =
        dit.prepare_text(randn_philox({o.batch, 300, config.caption_channels}, o.seed, 2, device), {});
    Fp8Rule rule = dit_fp8_rule();
    rule.keep = parse_globs(o.keep);
    Fp8Report report = fp8_report(dit, rule, o.threshold, [&] { return dit.forward(latents, times, text); });

    std::string rows;
    for (const auto& layer : report.layers) {
        char line[200];
        std::snprintf(line, sizeof line, "%10.2e  %s%s", layer.error, layer.name.c_str(),
                      layer.kept ? "  (stays bf16)" : "");
        console.line(line);
        rows += join(rows.empty() ? "" : ", ", "{\"layer\": ", json_string(layer.name),
                     ", \"error\": ", layer.error, ", \"kept\": ", layer.kept ? "true" : "false", "}");
    }
    int64_t kept = std::count_if(report.layers.begin(), report.layers.end(), [](auto& l) { return l.kept; });
    // What to give to sana generate: what was not tried, and what turned out to lose much.
    std::string keep = globs_text(rule.keep) + (rule.keep.empty() || kept == 0 ? "" : ",") + report.keep();
    char figures[160];
    std::snprintf(figures, sizeof figures,
                  ": relative L2 error of a prediction, fp8 against bf16: %.2e with %zu layers in fp8",
                  report.all, report.layers.size());
    console.line(subject.name + figures);
    if (kept > 0) {
        std::snprintf(figures, sizeof figures, ", %.2e with the %lld above %.2e left as bf16", report.chosen,
                      static_cast<long long>(kept), o.threshold);
        console.line(figures);
    }
    console.line("  --fp8-keep '" + keep + "'");
    console.event(
        "fp8", join("\"model\": ", json_string(subject.name), ", \"device\": ", json_string(join(device)),
                    ", \"prediction_error\": ", report.all, ", \"prediction_error_chosen\": ", report.chosen,
                    ", \"threshold\": ", o.threshold, ", \"keep\": ", json_string(keep), ", \"layers\": [",
                    rows, "]"));
}

}  // namespace

void add_quantize(CLI::App& app, Common& common) {
    CLI::App* command = app.add_subcommand("quantize", "What 8-bit (E4M3) weights would cost a transformer");
    command->footer(
        "Each layer is computed in bf16 and with E4M3 weights and inputs, on the same drawn input; its error "
        "is the\n"
        "relative L2 of the two products, about 4e-2 for values without outliers. Examples:\n"
        "  sana quantize --report --model MODEL\n"
        "  sana quantize --report --preset sana-video-2b-480p --random --device cuda --width 832 --height "
        "480\n"
        "sana generate --precision fp8 --fp8-keep LAYERS uses what the last line recommends.");
    auto o = std::make_shared<QuantizeOptions>();
    command->add_flag("--report", o->report,
                      "Print the error of every layer, the largest first, and of a prediction");
    command->add_option("--model", o->model, "Model folder")->type_name("FOLDER");
    command->add_option("--transformer", o->transformer, "Transformer weights from elsewhere")
        ->type_name("PATH");
    command->add_option("--preset", o->preset, "A configuration instead of a model; sana init lists them")
        ->type_name("NAME");
    command->add_flag("--random", o->random, "Random weights for --preset");
    command->add_option("--layers", o->layers, "Of a preset: so many blocks instead of all")
        ->check(CLI::Range(1, 64));
    command->add_option("--threshold", o->threshold, "Layers with a larger error stay bf16 (default 0.06)")
        ->check(CLI::Range(0.0, 1.0));
    command
        ->add_option("--keep", o->keep,
                     "Layers that stay bf16 and are not tried: globs between commas "
                     "(default " +
                         o->keep + ", as of sana generate --fp8-keep)")
        ->type_name("GLOBS");
    command->add_option("--timestep", o->timestep, "Of the drawn input, 0 .. 1000 (default 500)")
        ->check(CLI::Range(0.0, 1000.0));
    command->add_option("--width", o->width, "Of the drawn input, pixels (default 256)")
        ->check(CLI::Range(32, 4096));
    command->add_option("--height", o->height, "The same")->check(CLI::Range(32, 4096));
    command->add_option("--frames", o->frames, "The same (default 17)")->check(CLI::Range(1, 1000));
    command->add_option("--batch", o->batch, "Samples (default 2)")->check(CLI::Range(1, 16));
    command->add_option("--seed", o->seed, "Of what is drawn")->type_name("N");
    command->add_option("--device", o->device, "auto, cpu, cuda or cuda:N (default auto)")
        ->type_name("DEVICE");
    command->callback([=, &common] { quantize(*o, common); });
}

}  // namespace sana::apps
