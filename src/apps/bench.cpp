// sana bench: how long the parts of a generation take here.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>

#include "apps/console.h"
#include "bench/ops_bench.h"
#include "core/parallel.h"
#include "core/random.h"
#include "core/scope.h"
#include "ops/layout.h"
#include "pipeline/presets.h"

namespace sana::apps {

namespace {

struct BenchOptions {
    std::string what = "dit-block", filter = "*", device = "cpu";
    int64_t tokens = 4096, frames = 9, size = 256, layers = 4, repeats = 3, threads = 0;
    bool profile = false;
};

struct Result {
    double seconds = 0, tflop = 0;
    std::map<std::string, ScopeTimes::Entry> scopes;
};

Result best_of(int64_t repeats, double tflop, const std::function<void()>& body) {
    Result best;
    body();  // weights are packed and buffers allocated by the first run
    for (int64_t i = 0; i < repeats; ++i) {
        ScopeTimes times;
        auto start = std::chrono::steady_clock::now();
        body();
        double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        if (i == 0 || seconds < best.seconds) best = {seconds, tflop, times.entries};
    }
    return best;
}

// One block of the 2B transformer at full width.
Result bench_dit_block(const BenchOptions& o) {
    DiTConfig config = find_preset("sana-video-2b-480p").dit;
    config.layers = 1;
    DiT dit(config);
    draw(parameters(dit), 1, DType::F32);
    int64_t side = 16, frames = std::max<int64_t>(1, o.tokens / (side * side));
    TextContext text = dit.prepare_text(randn_philox({1, 300, config.caption_channels}, 2), {});
    Tensor latents = randn_philox({1, frames, 2 * side, 2 * side, config.in_channels}, 3),
           t = full({1}, 500, DType::F32);
    double tokens = static_cast<double>(frames * side * side), width = static_cast<double>(config.width()),
           inner = static_cast<double>(config.inner());
    double flop = 2 * tokens *
                  (6 * width * width + 3 * inner * width + 3 * width * width + 2 * 300 * width +
                   2 * width * static_cast<double>(config.head_dim));
    return best_of(o.repeats, flop * 1e-12, [&] { dit.forward(latents, t, text); });
}

Result bench_text(const BenchOptions& o) {
    Gemma2Config config = find_preset("sana-video-2b-480p").text;
    config.layers = o.layers;
    config.sliding.resize(static_cast<size_t>(o.layers));
    config.vocabulary = 1024;  // the embedding is a table look-up
    Gemma2 model(config);
    draw(parameters(model), 1, DType::F32);
    Tensor ids = zeros({1, 300}, DType::I32);
    for (int32_t i = 0; i < 300; ++i) ids.data<int32_t>()[i] = i;
    double width = static_cast<double>(config.hidden),
           q = static_cast<double>(config.heads * config.head_dim);
    double flop = 2.0 * 300 * static_cast<double>(o.layers) *
                  (width * q * 3 + 3 * width * static_cast<double>(config.inner));
    return best_of(o.repeats, flop * 1e-12, [&] { model.forward(ids, {}); });
}

Result bench_vae(const BenchOptions& o) {
    Vae vae(find_preset("sana-video-2b-480p").vae, VaeParts::decoder);
    draw(vae.parameters(), 1, DType::F32);
    Tensor latents = randn_philox({1, (o.frames - 1) / 4 + 1, o.size / 8, o.size / 8, 16}, 3);
    double share = static_cast<double>(o.size * o.size) / (480.0 * 832.0);
    double flop = share * (4.35e12 + 13.55e12 * static_cast<double>((o.frames - 1) / 4));
    return best_of(o.repeats, flop * 1e-12, [&] { vae.decode(latents); });
}

void bench(const BenchOptions& o, const Common& common) {
    if (o.threads > 0) set_threads(static_cast<int>(o.threads));
    if (o.what == "ops") {
        cases::OpsBenchOptions options;
        options.filter = o.filter;
        options.json = common.json;
        options.device = *parse_device(o.device);
        cases::run_ops_bench(options, std::cout);
        return;
    }
    Console console(common);
    Result r = o.what == "dit-block" ? bench_dit_block(o) : o.what == "text" ? bench_text(o) : bench_vae(o);
    console.event("bench",
                  join("\"what\": ", json_string(o.what), ", \"seconds\": ", r.seconds,
                       ", \"tflop\": ", r.tflop, ", \"gflop_s\": ", r.tflop * 1000 / r.seconds,
                       ", \"threads\": ", int64_t{threads()}, ", \"peak_bytes\": ", peak_resident_bytes()));
    console.line(join(o.what, ": ", r.seconds, " s, ", r.tflop * 1000 / r.seconds, " GFLOP/s, ",
                      int64_t{threads()}, " threads, peak memory ",
                      bytes_text(static_cast<double>(peak_resident_bytes()))));
    if (!o.profile) return;
    std::vector<std::pair<double, std::string>> rows;
    for (const auto& [path, entry] : r.scopes) rows.emplace_back(entry.seconds, path);
    std::sort(rows.rbegin(), rows.rend());
    for (const auto& [seconds, path] : rows) {
        char text[256];
        std::snprintf(text, sizeof text, "%8.1f ms  %s", seconds * 1000, path.c_str());
        console.line(text);
    }
}

}  // namespace

void add_bench(CLI::App& app, Common& common) {
    CLI::App* command =
        app.add_subcommand("bench", "Time parts of the models at their released sizes on random weights");
    auto o = std::make_shared<BenchOptions>();
    command
        ->add_option("what", o->what,
                     "ops: every op against its roofline; dit-block: one full-width block; text: Gemma-2 "
                     "layers at 300 "
                     "tokens; vae: Wan decode")
        ->check(CLI::IsMember({"ops", "dit-block", "text", "vae"}))
        ->required();
    command->add_option("--filter", o->filter,
                        "Of ops: a glob over op and shape, or an op's name (default *)");
    command
        ->add_option("--device", o->device, "Of ops: cpu, cuda, or cuda:N for one of several (default cpu)")
        ->check([](const std::string& text) {
            return parse_device(text) ? std::string()
                                      : text + " is not a device; cpu, cuda or cuda:N is expected";
        });
    command->add_option("--tokens", o->tokens, "Of dit-block, a multiple of 256 (default 4096)")
        ->check(CLI::Range(256, 65536));
    command->add_option("--layers", o->layers, "Of text (default 4 of the 26)")->check(CLI::Range(1, 26));
    command->add_option("--frames", o->frames, "Of vae (default 9)")->check(CLI::Range(1, 1000));
    command->add_option("--size", o->size, "Side of the frames of vae (default 256)")
        ->check(CLI::Range(64, 2048));
    command->add_option("--repeats", o->repeats, "The fastest of so many counts (default 3)")
        ->check(CLI::Range(1, 1000));
    command->add_option("--threads", o->threads, "CPU threads; 0: all cores")->check(CLI::Range(0, 1024));
    command->add_flag("--profile", o->profile, "Time by named region");
    command->callback([=, &common] { bench(*o, common); });
}

}  // namespace sana::apps
