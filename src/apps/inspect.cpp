// sana inspect.
#include <algorithm>
#include <map>
#include <memory>

#include "apps/console.h"
#include "io/checkpoint.h"
#include "io/text_file.h"

namespace sana::apps {

namespace {

struct Census {
    int64_t tensors = 0, parameters = 0, bytes = 0;
    std::map<std::string, int64_t> dtypes;
};

Census census(const TensorMap& tensors) {
    Census c;
    for (const auto& [name, tensor] : tensors) {
        ++c.tensors;
        c.parameters += tensor.numel();
        c.bytes += tensor.bytes();
        c.dtypes[std::string(name_of(tensor.dtype()))] += 1;
    }
    return c;
}

std::string text_of(const Census& c) {
    std::string types;
    for (const auto& [dtype, n] : c.dtypes)
        types += (types.empty() ? "" : ", ") + (c.dtypes.size() > 1 ? join(n, ' ', dtype) : dtype);
    return join(c.tensors, " tensors, ", c.parameters, " parameters, ", types, ", ",
                bytes_text(static_cast<double>(c.bytes)));
}

class Report {
public:
    explicit Report(Console& console) : console_(console) {}

    void line(const std::string& name, const std::string& value) {
        std::string padded = name;
        padded.resize(std::max<size_t>(padded.size(), 18), ' ');
        console_.line(padded + ' ' + value);
        console_.event("fact", join("\"name\": ", json_string(name), ", \"value\": ", json_string(value)));
    }

    void mismatch(const Mismatch& m) {
        if (m.none()) {
            line("  names", "all there, nothing too much");
            return;
        }
        clean_ = false;
        list("  missing", m.missing);
        list("  other shape", m.misshapen);
        list("  too much", m.surplus);
    }

    bool clean() const { return clean_; }

private:
    void list(const std::string& name, const std::vector<std::string>& items) {
        constexpr size_t kMost = 20;
        if (items.empty()) return;
        line(name, join(items.size()));
        for (size_t i = 0; i < std::min(items.size(), kMost); ++i) line("", "  " + items[i]);
        if (items.size() > kMost) line("", join("  ... and ", items.size() - kMost, " more"));
    }

    Console& console_;
    bool clean_ = true;
};

std::string text_of(const DiTConfig& c) {
    return join(c.layers, " blocks, width ", c.width(), " (", c.heads, " heads of ", c.head_dim, "), inner ",
                c.inner(), ", patch ", c.patch[0], 'x', c.patch[1], 'x', c.patch[2], ", ", c.in_channels,
                " latent channels, text width ", c.caption_channels);
}

// The weights of a part against its config; a part that is not there is said and passed over.
template <class Build>
void inspect_part(Report& report, const std::string& name, const std::string& path, Build build) {
    TensorMap weights;
    try {
        weights = read_weights(path);
    } catch (const InputError& error) {
        report.line(name, "no weights: " + std::string(error.what()));
        return;
    }
    report.line(name, text_of(census(weights)));
    report.mismatch(build(weights));
}

void inspect_model(Report& report, const ModelPaths& paths) {
    ModelFolder model(paths);
    report.line("model", paths.folder);
    inspect_part(
        report, "transformer", paths.transformer.empty() ? paths.folder + "/transformer" : paths.transformer,
        [&](const TensorMap& weights) {
            DiT dit(model.dit);
            return compare(parameters(dit),
                           looks_official(weights) ? dit_official_names() : dit_diffusers_names(model.dit),
                           weights);
        });
    report.line("", text_of(model.dit));
    inspect_part(report, "text encoder", paths.folder + "/text_encoder", [&](const TensorMap& weights) {
        Gemma2 text(model.text);
        return compare(parameters(text), gemma2_names(weights), weights);
    });
    report.line("", join("Gemma-2, ", model.text.layers, " layers, width ", model.text.hidden,
                         ", vocabulary ", model.text.vocabulary));
    inspect_part(report, "autoencoder", paths.folder + "/vae", [&](const TensorMap& weights) {
        Vae vae(model.vae, VaeParts::both);
        return compare(vae.parameters(), vae.names(weights), weights);
    });
    VaeShape shape = shape_of(model.vae);
    report.line("", join(class_name(model.vae), ", ", shape.latent_channels, " channels, ",
                         shape.spatial_factor, "x in space, ", shape.temporal_factor, "x in time"));
    try {
        report.line("tokenizer", join(model.load_tokenizer().size(), " tokens"));
    } catch (const InputError& error) {
        report.line("tokenizer", std::string("none: ") + error.what());
    }
    report.line("sampler", join(name_of(model.sampler), ", flow shift ", model.flow_shift));
    report.line("instruction",
                join(describe(model.prompt_template), " (from ", model.prompt_template.source, ")"));
    const SizeRules& rules = model.size_rules;
    report.line("sizes", join("sides multiples of ", rules.multiple, ", 1 + ", rules.temporal, "k frames",
                              resolution_bins(model.dit.sample_size) != nullptr
                                  ? (model.dit.sample_size == 30 ? ", 480p bins" : ", 720p bins")
                                  : ", no bins"));
    for (const auto& [part, fingerprint] : model.fingerprints())
        report.line("fingerprint", part + ' ' + fingerprint);
}

void inspect_file(Report& report, const std::string& path) {
    Checkpoint file = read_checkpoint(path);
    report.line("file", path);
    report.line("holds", text_of(census(file.tensors)));
    if (looks_official(file.tensors)) {
        DiTConfig config = infer_dit_config(file.tensors, 112, path);
        report.line("is", "a SANA-Video transformer in the official layout");
        report.line("", text_of(config));
        DiT dit(config);
        report.mismatch(compare(parameters(dit), dit_official_names(), file.tensors));
    } else if (file.tensors.count("patch_embedding.weight") != 0 &&
               file.tensors.count("caption_norm.weight") != 0) {
        report.line("is", "a SANA-Video transformer in the diffusers layout");
    } else if (file.tensors.count("latents") != 0) {
        report.line("is", join("latents ", file.tensors.at("latents").shape()));
    }
    for (const auto& [key, value] : file.metadata)
        report.line("metadata " + key, value.size() > 300 ? value.substr(0, 297) + "..." : value);
    constexpr size_t kMost = 12;
    size_t shown = 0;
    for (const auto& [name, tensor] : file.tensors) {
        if (++shown > kMost) break;
        report.line("", join(name, ' ', tensor.dtype(), tensor.shape()));
    }
    if (file.tensors.size() > kMost)
        report.line("", join("... and ", file.tensors.size() - kMost, " more tensors"));
}

}  // namespace

void add_inspect(CLI::App& app, Common& common) {
    CLI::App* command =
        app.add_subcommand("inspect", "Say what a model folder or a weights file is, and what it lacks");
    command->footer("Ends with exit code 2 when weights do not fit their config.");
    auto settings = std::make_shared<Settings>();
    auto path = std::make_shared<std::string>();
    command->add_option("path", *path, "Model folder, .safetensors, .pth or a part's folder")
        ->required()
        ->type_name("PATH");
    add_parameters(*command, *settings, {"transformer", "tokenizer", "prompt-template"});
    command->callback([=, &common] {
        Console console(common);
        Report report(console);
        if (file_exists(*path + "/model_index.json") || file_exists(*path + "/transformer/config.json")) {
            ModelPaths paths = settings->model_paths();
            paths.folder = *path;
            inspect_model(report, paths);
        } else {
            inspect_file(report, *path);
        }
        check_input(report.clean(), *path, ": the weights do not fit the config, see above");
    });
}

}  // namespace sana::apps
