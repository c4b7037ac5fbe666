// sana train.
#include "train/trainer.h"

#include <cstdio>
#include <filesystem>
#include <memory>

#include "apps/config_file.h"
#include "apps/console.h"
#include "apps/run_generation.h"
#include "apps/train_data.h"
#include "apps/train_table.h"
#include "core/parallel.h"
#include "io/checkpoint.h"
#include "io/text_file.h"
#include "pipeline/model_folder.h"
#include "train/flow.h"
#include "train/vae_objective.h"

namespace sana::apps {

namespace {

namespace fs = std::filesystem;

TrainOptions train_options(const Settings& s, Device device, DType compute, bool resume, Group& group) {
    TrainOptions o;
    o.folder = s.text("out");
    o.steps = s.integer("steps");
    o.minutes = s.number("minutes");
    o.accumulation = s.integer("accumulation");
    o.warmup = s.integer("warmup");
    std::string schedule = s.text("schedule");
    o.schedule = schedule == "cosine"   ? RateSchedule::cosine
                 : schedule == "linear" ? RateSchedule::linear
                                        : RateSchedule::constant;
    o.step = {.rate = s.number("rate"),
              .beta1 = s.number("beta1"),
              .beta2 = s.number("beta2"),
              .epsilon = s.number("epsilon"),
              .decay = s.number("decay"),
              .momentum = s.number("momentum"),
              .clip = s.number("clip"),
              .average = s.number("average")};
    o.slab = {.compute = compute,
              .device = device,
              .optimizer = optimizer_of(s.text("optimiser")),
              .average = s.number("average") > 0};
    o.seed = static_cast<uint64_t>(s.integer("seed"));
    o.image_interval = s.integer("image-interval");
    o.log_every = s.integer("log-every");
    o.checkpoint_every = s.integer("checkpoint-every");
    o.hold_out_every = s.integer("hold-out-every");
    o.hold_out_batches = s.integer("hold-out-batches");
    o.sample_every = s.integer("sample-every");
    o.keep = s.integer("keep");
    o.small_checkpoints = s.flag("small-checkpoints");
    o.resume = resume;
    o.group = &group;
    return o;
}

bool has_weights(const std::string& folder) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
        if (entry.path().extension() == ".safetensors") return true;
    }
    return false;
}

// The weights of a part: those of its folder, or random ones where it has none and may be trained from nothing. Whether
// they are random.
bool fill_part(Console& console, const std::vector<NamedParameter>& list, const std::string& folder,
               const std::function<CheckpointNames(const TensorMap&)>& names, bool may_be_new, uint64_t seed,
               DType dtype, Device device) {
    if (has_weights(folder)) {
        TensorMap weights = read_checkpoint(folder).tensors;
        load(list, names(weights), weights, dtype, folder, device);
        return false;
    }
    check_input(may_be_new, folder,
                ": has no weights, and this stage does not train them; train this part first");
    draw(list, seed, dtype, device);
    console.note(join(folder, ": no weights; ", count(list), " parameters are drawn at random from seed ",
                      static_cast<int64_t>(seed)));
    return true;
}

JsonConfig part_config(const std::string& folder) {
    std::string path = folder + "/config.json";
    check_input(file_exists(path), path, ": is missing; a model folder in the diffusers layout has it");
    return JsonConfig(read_json_text(path), path);
}

// What the trained model folder needs besides the trained part: the rest of the model it started from.
void copy_rest(const std::string& from, const std::string& to) {
    std::error_code error;
    make_folders(to);
    for (const auto& entry : fs::recursive_directory_iterator(from)) {
        fs::path target = fs::path(to) / fs::relative(entry.path(), from);
        if (entry.is_directory()) {
            fs::create_directories(target, error);
        } else if (!fs::exists(target)) {
            fs::copy_file(entry.path(), target, error);
            check_input(!error, target.string(), ": cannot be written: ", error.message());
        }
    }
}

struct Run {
    const Settings& s;
    const Common& common;
    Console& console;
    Device device;
    DType compute;
    bool resume;
    Group& group;

    TrainHooks hooks() const {
        TrainHooks h;
        auto last = std::make_shared<std::chrono::steady_clock::time_point>();
        h.note = [this](const std::string& text) { console.note(text); };
        h.cancelled = [] { return interrupted(); };
        h.progress = [this, last](const TrainProgress& p) {
            auto now = std::chrono::steady_clock::now();
            bool end = p.step == p.steps;
            if (!end && now - *last < std::chrono::milliseconds(common.json ? 1000 : 200)) return;
            *last = now;
            console.event("progress",
                          join("\"phase\": \"train\", \"done\": ", p.step, ", \"total\": ", p.steps,
                               ", \"loss\": ", p.loss, ", \"norm\": ", p.norm, ", \"rate\": ", p.rate,
                               ", \"step_s\": ", p.seconds_a_step, ", \"left_s\": ", p.seconds_left));
            char text[200];
            std::snprintf(text, sizeof text,
                          "step %lld/%lld  loss %.4f  gradient %.3g  rate %.2g  %.1f steps/s, %s left",
                          static_cast<long long>(p.step), static_cast<long long>(p.steps), p.loss, p.norm,
                          p.rate, p.seconds_a_step > 0 ? 1 / p.seconds_a_step : 0.0,
                          duration_text(p.seconds_left).c_str());
            console.live(text);
        };
        return h;
    }

    void samples(int64_t step, const std::string& model) const {
        if (!s.given("prompts")) return;
        bool lora = s.integer("lora-rank") > 0;
        if (!lora) copy_rest(s.text("model"), model);
        std::string prompts = read_text_file(s.text("prompts")),
                    folder = join(s.text("out"), "/samples/step-", step);
        make_folders(folder);
        Bucket size = train_buckets(s).clips[0];
        int64_t number = 0;
        for (size_t at = 0; at < prompts.size();) {
            size_t end = std::min(prompts.find('\n', at), prompts.size());
            std::string prompt = prompts.substr(at, end - at);
            at = end + 1;
            if (prompt.empty()) continue;
            Settings g;
            auto set = [&](const char* name, const std::string& value) { g.set(name, value, "sample"); };
            set("model", lora ? s.text("model") : model);
            if (lora) set("lora", model + "/pytorch_lora_weights.safetensors");
            if (s.given("tokenizer")) set("tokenizer", s.text("tokenizer"));
            set("prompt", prompt);
            for (const char* name : {"seed", "device"}) set(name, s.text(name));
            set("width", join(size.width));
            set("height", join(size.height));
            set("frames", join(size.frames));
            set("steps", s.text("sample-steps"));
            set("guidance", s.text("sample-guidance"));
            set("out", join(folder, "/", ++number, ".mp4"));
            Common quiet;
            quiet.quiet = true;
            run_generation(g, quiet);
        }
    }

    TrainResult vae() const {
        std::string folder = s.text("model") + "/vae";
        VaeConfig config = vae_config_from_json(part_config(folder));
        const auto* wan = std::get_if<WanVaeConfig>(&config);
        check_input(wan != nullptr, folder, ": only autoencoders of the Wan type are trained");
        SizeRules rules;
        rules.multiple = wan->spatial_factor();
        rules.temporal = wan->temporal_factor();
        train_buckets(s).check(rules);
        WanVae vae(*wan, VaeParts::both);
        bool fresh = fill_part(
            console, parameters(vae), folder, [](const TensorMap&) { return wan_vae_names(VaeParts::both); },
            true, static_cast<uint64_t>(s.integer("seed")), DType::F32, device);
        bool decoder_only = s.flag("decoder-only");
        check_input(!fresh || !decoder_only, folder,
                    ": has no weights, and decoder-only asks for an encoder that is trained already");
        if (fresh) begin_narrow(vae);
        if (decoder_only) freeze_encoder(vae, compute);
        VaeObjective objective(vae, {.squared = s.number("squared"),
                                     .scales = s.number("scales"),
                                     .edges = s.number("edges"),
                                     .motion = s.number("motion"),
                                     .kl = s.number("kl"),
                                     .decoder_only = decoder_only});
        TrainSources sources = make_sources(s, [this](const std::string& what) { console.note(what); });
        TrainHooks h = hooks();
        if (!decoder_only)
            h.before_write = [&] {
                const Source& source = sources.held_out ? *sources.held_out : *sources.videos;
                std::vector<Batch> batches;
                for (int64_t i = 0; i < 8; ++i) batches.push_back(batch_with_pixels(source, i, h.note));
                objective.measure_latents(batches);
            };
        return train(objective, sources.data(s), train_options(s, device, compute, resume, group), h);
    }

    TrainResult dit() const {
        std::string model = s.text("model");
        check_input(!s.flag("decoder-only"), "decoder-only is of stage vae, and stage is dit; leave it out");
        uint64_t seed = static_cast<uint64_t>(s.integer("seed"));
        bool train_text = s.flag("train-text-encoder");
        VaeConfig vae_config = vae_config_from_json(part_config(model + "/vae"));
        DiT dit(DiTConfig::from_json(part_config(model + "/transformer")));
        train_buckets(s).check(rules_of(shape_of(vae_config), dit.config()));
        fill_part(
            console, parameters(dit), model + "/transformer",
            [&](const TensorMap& w) {
                return looks_official(w) ? dit_official_names() : dit_diffusers_names(dit.config());
            },
            true, seed, s.integer("lora-rank") > 0 ? compute : DType::F32, device);
        dit.recompute = !s.flag("no-recompute");
        Gemma2 text(Gemma2Config::from_json(part_config(model + "/text_encoder")));
        fill_part(console, parameters(text), model + "/text_encoder", gemma2_names, train_text, seed + 1,
                  train_text ? DType::F32 : compute, device);
        Vae vae(vae_config, VaeParts::encoder);
        fill_part(
            console, vae.parameters(), model + "/vae", [&](const TensorMap& w) { return vae.names(w); },
            false, seed, compute, device);
        check_input(dit.config().in_channels == shape_of(vae_config).latent_channels &&
                        dit.config().caption_channels == text.config().hidden,
                    model, ": transformer, autoencoder and text encoder do not belong together");
        Tokenizer tokenizer =
            Tokenizer::load(s.given("tokenizer") ? s.text("tokenizer") : model + "/tokenizer");
        check_input(tokenizer.size() <= text.config().vocabulary, "the tokenizer has ", tokenizer.size(),
                    " tokens, the text encoder ", text.config().vocabulary);
        std::optional<LoraAdapter> lora;
        if (s.integer("lora-rank") > 0) {
            check_input(!train_text,
                        "lora-rank and train-text-encoder: a LoRA has the transformer's layers alone");
            lora.emplace(parameters(dit),
                         LoraOptions{s.integer("lora-rank"), s.number("lora-alpha"), s.text("lora-layers")},
                         seed, DType::F32, device);
        }
        TrainCache cache(s, device, compute, [this](const std::string& what) { console.note(what); });
        FlowObjective objective(dit, text, tokenizer, cache.on() ? cache.latents(vae) : online_latents(vae),
                                {.shift = s.number("shift"),
                                 .mean = s.number("time-mean"),
                                 .deviation = s.number("time-deviation"),
                                 .image_to_video = s.number("image-to-video"),
                                 .drop_caption = s.number("drop-caption")},
                                train_text, s.integer("text-tokens"), lora ? &*lora : nullptr, cache.text());
        TrainSources sources = make_sources(s, [this](const std::string& what) { console.note(what); });
        TrainHooks h = hooks();
        h.samples = [this](int64_t step, const std::string& folder) { samples(step, folder); };
        TrainResult result = train(objective, sources.data(s, cache.kept()),
                                   train_options(s, device, compute, resume, group), h);
        if (cache.on()) console.note(cache.summary());
        return result;
    }
};

void run_train(const Settings& s, const Common& common, bool resume, Group& group) {
    Console console(common);
    check_input(s.given("model"), "no model to start from; set model to a folder in the diffusers layout");
    check_input(s.given("out"), "no folder for the run; set out");
    if (s.integer("threads") > 0) set_threads(static_cast<int>(s.integer("threads")));
    Device device = find_device(s.text("device"));
    if (group.size() > 1) {
        set_threads(std::max(1, threads() / group.size()));
        if (device != kCpu) device = find_device(join("cuda:", device.index + group.rank()));
    }
    std::string word = s.text("precision");
    DType compute = word == "auto" ? (device == kCpu ? DType::F32 : DType::BF16) : parse_dtype(word).value();
    check_input(compute == DType::F32 || device != kCpu,
                "training in bf16 needs a GPU; on the CPU use --precision fp32");
    make_folders(s.text("out"));
    if (group.rank() == 0) write_text_file(s.text("out") + "/config.toml", s.to_toml());
    Run run{s, common, console, device, compute, resume, group};
    TrainResult result = s.text("stage") == "vae" ? run.vae() : run.dit();
    if (group.rank() > 0) return;
    group.finish();
    if (s.integer("lora-rank") == 0) copy_rest(s.text("model"), result.model);
    console.event("done", join("\"step\": ", result.step, ", \"loss\": ", result.loss,
                               ", \"held_out\": ", result.held_out, ", \"step_s\": ", result.seconds_a_step,
                               ", \"checkpoint\": ", json_string(result.checkpoint),
                               ", \"model\": ", json_string(result.model), device_memory_fields(device)));
    console.line(join("step ", result.step, ": loss ", result.loss, ", held out ", result.held_out, ", ",
                      result.seconds_a_step, " s a step", device_memory_text(device), "; model in ",
                      result.model, ", goes on with --resume"));
}

// Splits the process where several are wanted, before anything starts threads or a device.
void run_processes(const Settings& s, const Common& common, bool resume) {
    Group group(static_cast<int>(s.integer("processes")));
    group.start();
    if (group.rank() == 0) return run_train(s, common, resume, group);
    Common quiet = common;
    quiet.quiet = true;
    quiet.json = false;
    int code = 0;
    try {
        run_train(s, quiet, resume, group);
    } catch (const std::exception& error) {
        code = 1;
        // What went wrong in all is said by the first one.
        if (!group.another_failed())
            std::fprintf(stderr, "error in process %d: %s\n", group.rank(), error.what());
        group.give_up();
    }
    std::_Exit(code);
}

}  // namespace

void add_train(CLI::App& app, Common& common) {
    CLI::App* command =
        app.add_subcommand("train", "Train an autoencoder, or a transformer with its text encoder");
    command->footer(
        "Examples:\n"
        "  sana train recipes/embedded/vae.toml\n"
        "  sana train recipes/embedded/dit.toml --resume --minutes 10\n"
        "  sana train --stage dit --model MODEL --data CLIPS/ --out RUN --dump-config > run.toml\n"
        "docs/training.md explains the stages, the data and the files of a run.");
    auto settings = std::make_shared<Settings>(train_table(), "train");
    auto config = std::make_shared<std::string>();
    auto dump = std::make_shared<bool>(false), resume = std::make_shared<bool>(false);
    command->add_option("config", *config, "Parameters from a TOML or JSON file; the command line wins")
        ->type_name("CONFIG");
    add_parameters(*command, *settings, {});
    command->add_flag("--dump-config", *dump, "Print the parameters in force as TOML and stop");
    command->add_flag("--resume", *resume, "Go on from the newest checkpoint of the run, if there is one");
    command->callback([=, &common] {
        if (!config->empty()) merge_config_file(*settings, *config);
        if (*dump) {
            std::fputs(settings->to_toml().c_str(), stdout);
            return;
        }
        run_processes(*settings, common, *resume);
    });
}

}  // namespace sana::apps
