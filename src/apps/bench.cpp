// sana bench: how long the parts of a generation take here.
#include <iostream>
#include <memory>

#include "apps/bench_models.h"
#include "apps/bench_request.h"
#include "apps/bench_training.h"
#include "bench/ops_bench.h"
#include "core/parallel.h"
#include "io/text_file.h"

namespace sana::apps {

namespace {

struct BenchOptions {
    std::string what, filter = "*", device = "auto", precision = "auto", out;
    ModelBench model;
    Effort effort;
    int64_t threads = 0;
    double tflop_per_s = 0, tb_per_s = 0;  // 0: measured
    Settings settings;                     // of a request: the parameter table
};

void bench_ops(const BenchOptions& o, const Common& common) {
    cases::OpsBenchOptions options;
    options.filter = o.filter;
    options.json = common.json;
    options.device = find_device(o.device);
    cases::run_ops_bench(options, std::cout);
}

Ceilings ceilings(const BenchOptions& o, DType dtype, Device device) {
    return {o.tflop_per_s > 0 ? o.tflop_per_s * 1e12 : cases::measured_product_speed(dtype, device),
            o.tb_per_s > 0 ? o.tb_per_s * 1e12 : cases::measured_bandwidth(device)};
}

void bench_model(BenchOptions o, const Common& common) {
    Console console(common);
    o.model.device = find_device(o.device);
    o.model.fp8 = o.precision == "fp8";
    check_input(!o.model.fp8 || o.what == "dit", "fp8 is a precision of the transformer; ", o.what,
                " takes fp32 or bf16");
    o.model.dtype = o.model.fp8             ? DType::BF16
                    : o.precision == "auto" ? (o.model.device == kCpu ? DType::F32 : DType::BF16)
                                            : parse_dtype(o.precision).value();
    Subject subject = o.what == "dit"          ? dit_subject(o.model)
                      : o.what == "train-step" ? train_step_subject(o.model)
                      : o.what == "text"       ? text_subject(o.model)
                                               : vae_subject(o.model);
    Measurement measured = measure(subject, o.effort);
    Ceilings best = ceilings(o, subject.dtype, o.model.device);
    console.line(to_text(subject, measured, best));
    nlohmann::ordered_json json{{"event", "bench"}};
    json.update(to_json(subject, measured, best));
    json["environment"] = environment(o.model.device);
    if (common.json) std::cout << json.dump() << "\n" << std::flush;
    json.erase("event");
    if (!o.out.empty()) write_text_file(o.out, json.dump(2) + "\n");
}

// Words of about the length that the released models are used with.
std::string long_prompt() {
    std::string text;
    for (int i = 0; i < 9; ++i) text += "a red kite over the bay ";
    return text;
}

void bench_request(BenchOptions o, const Common& common) {
    Console console(common);
    Settings& s = o.settings;
    s.set("device", o.device, "--device");
    s.set("precision", o.precision, "--precision");
    if (s.text("prompt").empty()) s.set("prompt", long_prompt(), "bench");
    const Preset& preset = find_preset(o.model.preset);
    Size size = size_of_video(o.model, preset);
    s.set("width", join(size.width), "--width");
    s.set("height", join(size.height), "--height");
    s.set("frames", join(o.model.frames), "--frames");
    Placement placement = s.placement();
    ModelFolder model = s.given("model") ? ModelFolder(s.model_paths()) : random_model(preset, 1);
    RequestMeasurement measured = measure_request(model, placement, s.request(), o.effort.repeats);
    console.line(to_text(measured));
    nlohmann::ordered_json json{{"event", "bench"}};
    json.update(to_json(measured));
    json["preset"] = s.given("model") ? s.text("model") : preset.name;
    json["environment"] = environment(placement.device);
    if (common.json) std::cout << json.dump() << "\n" << std::flush;
    json.erase("event");
    if (!o.out.empty()) write_text_file(o.out, json.dump(2) + "\n");
}

void bench(const BenchOptions& o, const Common& common) {
    if (o.threads > 0) set_threads(static_cast<int>(o.threads));
    if (o.what == "ops") return bench_ops(o, common);
    if (o.what == "request") return bench_request(o, common);
    bench_model(o, common);
}

}  // namespace

void add_bench(CLI::App& app, Common& common) {
    CLI::App* command = app.add_subcommand(
        "bench", "Time ops, models and whole requests at their released sizes on random weights");
    command->footer(
        "Examples:\n"
        "  sana bench dit                                      one step of the 480p transformer, guidance "
        "pair\n"
        "  sana bench dit --preset sana-video-2b-720p --seconds 20 --profile\n"
        "  sana bench vae --precision bf16 --out vae.json      Wan decode of 81 frames at 832 x 480\n"
        "  sana bench text --lengths 300 300 --padded          Gemma-2 on a padded pair\n"
        "  sana bench request --vram 8G --step-cache 0.05      a whole request, and what the cache costs in "
        "error\n"
        "  sana bench ops --filter linear                      an op at the sizes of its cases\n"
        "The full sizes are made for GPUs; on a CPU take fewer --layers and a smaller --width and --height.");
    auto o = std::make_shared<BenchOptions>();
    command
        ->add_option(
            "what", o->what,
            "ops: every op against its roofline; dit: one step of the transformer; train-step: one "
            "of its training; text: the text encoder; vae: decoding; request: all of it, from a prompt "
            "to frames")
        ->check(CLI::IsMember({"ops", "dit", "train-step", "text", "vae", "request"}))
        ->required();
    command
        ->add_option(
            "--device", o->device,
            "cpu, cuda, or cuda:N for one of several; auto: the first GPU, else the CPU (default auto)")
        ->check([](const std::string& text) {
            return is_device_name(text) ? std::string()
                                        : text + " is not a device; auto, cpu, cuda or cuda:N is expected";
        });
    command->add_option("--filter", o->filter,
                        "Of ops: a glob over op and shape, or an op's name (default *)");
    command->add_option("--preset", o->model.preset,
                        "The model (default sana-video-2b-480p); sana init lists them");
    command
        ->add_option("--precision", o->precision,
                     "auto (bf16 on a GPU, else fp32), fp32, bf16 or, of dit and request, fp8")
        ->check(CLI::IsMember({"auto", "fp32", "bf16", "fp8"}));
    command->add_option("--width", o->model.width, "Of the video (default: what the preset was released for)")
        ->check(CLI::Range(16, 16384));
    command->add_option("--height", o->model.height, "The same")->check(CLI::Range(16, 16384));
    command->add_option("--frames", o->model.frames, "Of the video (default 81)")
        ->check(CLI::Range(1, 100000));
    command
        ->add_option(
            "--batch", o->model.batch,
            "Of dit and train-step: samples (default 2). Of dit an even number is guidance's: two texts a "
            "clip, which share what comes before the first cross attention")
        ->check(CLI::Range(1, 64));
    command
        ->add_option("--lora-rank", o->model.lora_rank,
                     "Of train-step: low-rank additions of this rank are trained, not the weights")
        ->check(CLI::Range(1, 4096));
    command->add_option("--layers", o->model.layers, "Of dit and text (default: all)")
        ->check(CLI::Range(1, 64));
    command->add_option("--lengths", o->model.lengths, "Of text: tokens of each text (default 519 300)")
        ->check(CLI::Range(1, 8192))
        ->expected(1, 16);
    command->add_flag("--padded", o->model.padded,
                      "Of text: one padded batch instead of texts one behind the other");
    command->add_flag("--graph", o->model.graph, "Of dit on a GPU: recorded once and launched as a whole");
    command->add_option("--repeats", o->effort.repeats, "Runs behind the first one, at least (default 3)")
        ->check(CLI::Range(1, 100000));
    command->add_option("--seconds", o->effort.seconds, "Time spent on these runs, at least (default 0)")
        ->check(CLI::Range(0.0, 3600.0));
    command->add_flag("--profile", o->effort.profile,
                      "Time by named region, waiting for the device at its ends");
    command
        ->add_option("--tflops", o->tflop_per_s,
                     "Product speed that the floor is counted with (default: measured)")
        ->check(CLI::Range(1e-6, 1e6));
    command->add_option("--bandwidth", o->tb_per_s, "TB/s that the floor is counted with (default: measured)")
        ->check(CLI::Range(1e-6, 1e6));
    command->add_option("--out", o->out, "Write the figures to a JSON file")->type_name("FILE");
    command->add_option("--threads", o->threads, "CPU threads; 0: all cores")->check(CLI::Range(0, 1024));
    // The prompt, the seed and the size of a request come from above or from the program.
    add_parameters(*command, o->settings,
                   {"model", "prompt", "negative-prompt", "steps", "guidance", "sampler", "step-cache",
                    "vram", "vae-precision", "vae-tile"});
    command->callback([=, &common] { bench(*o, common); });
}

}  // namespace sana::apps
