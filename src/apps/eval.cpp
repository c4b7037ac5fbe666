// sana eval world: how much of what a prompt asks for a model shows, measured from pixels.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/console.h"
#include "apps/embedded_model.h"
#include "core/parallel.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "io/text_file.h"
#include "ops/layout.h"
#include "pipeline/batch_pipeline.h"
#include "train/world/judge.h"

namespace sana::apps {

namespace {

struct EvalOptions {
    std::string out, sheet, keep, kept;
    int64_t prompts = 500, first = 0, batch = 32;
    double image_share = 0.2, noise = 1;
    bool drawn = false, reconstructed = false;
};

struct Result {
    world::Asked asked;
    bool from_image = false, reconstructed = false;
    double psnr = 0;  // of the first frame, when it was given; of a reconstructed clip
};

std::string percent(double share) { return join(static_cast<double>(std::lround(share * 1000)) / 10, " %"); }

// Clips in two columns, four frames each, framed green where everything asked for is right and red elsewhere.
class ContactSheet {
public:
    explicit ContactSheet(int64_t count) : clips_(static_cast<size_t>(count)) {}
    void put(int64_t place, const Tensor& frames, bool right, const std::string& prompt) {
        if (place < static_cast<int64_t>(clips_.size()))
            clips_[static_cast<size_t>(place)] = {frames, right, prompt};
    }
    // The prompts stand beside it as .txt.
    void write(const std::string& path) const {
        std::string texts;
        for (size_t i = 0; i < clips_.size(); ++i)
            texts += join(i + 1, clips_[i].right ? " right  " : " wrong  ", clips_[i].prompt, '\n');
        write_text_file(path + ".txt", texts);
        int64_t height = clips_[0].frames.dim(1), width = clips_[0].frames.dim(2);
        int64_t cell_height = height + 2 * kFrame, cell_width = kShown * width + 2 * kFrame;
        int64_t rows = (static_cast<int64_t>(clips_.size()) + 1) / 2;
        Tensor sheet = full({rows * cell_height, 2 * cell_width, 3}, 255, DType::U8);
        for (size_t n = 0; n < clips_.size(); ++n) {
            int64_t top = static_cast<int64_t>(n / 2) * cell_height,
                    left = static_cast<int64_t>(n % 2) * cell_width;
            for (int64_t y = 0; y < cell_height; ++y)
                for (int64_t x = 0; x < cell_width; ++x) {
                    uint8_t* p = sheet.data<uint8_t>() + ((top + y) * 2 * cell_width + left + x) * 3;
                    p[0] = clips_[n].right ? 40 : 220;
                    p[1] = clips_[n].right ? 170 : 40;
                    p[2] = 60;
                }
            int64_t count = clips_[n].frames.dim(0);
            for (int64_t k = 0; k < kShown; ++k) {
                const uint8_t* frame =
                    clips_[n].frames.data<uint8_t>() + k * (count - 1) / (kShown - 1) * height * width * 3;
                for (int64_t y = 0; y < height; ++y)
                    std::memcpy(sheet.data<uint8_t>() +
                                    ((top + kFrame + y) * 2 * cell_width + left + kFrame + k * width) * 3,
                                frame + y * width * 3, static_cast<size_t>(width) * 3);
            }
        }
        write_png(path, sheet);
    }

private:
    static constexpr int64_t kShown = 4, kFrame = 3;
    struct Clip {
        Tensor frames;
        bool right = false;
        std::string prompt;
    };
    std::vector<Clip> clips_;
};

// The frames of a prompt's clip in a folder.
std::string frames_file(const std::string& folder, int64_t prompt) {
    return join(folder, "/", prompt, ".safetensors");
}

Tensor kept_frames(const std::string& folder, int64_t prompt, const Bucket& bucket) {
    std::string path = frames_file(folder, prompt);
    check_input(file_exists(path), path, ": is not there; --keep of a run over the same prompts writes it");
    TensorMap map = read_safetensors(path).tensors;
    auto it = map.find("frames");
    Shape shape{bucket.frames, bucket.height, bucket.width, 3};
    check_input(it != map.end() && it->second.dtype() == DType::U8 && it->second.shape() == shape, path,
                ": holds no frames of ", bucket.width, " x ", bucket.height, ", ", bucket.frames, " of them");
    return it->second;
}

// How far an evaluation is, now and then.
class Pace {
public:
    Pace(Console& console, int64_t total) : console_(console), total_(total) {}
    void one_more(bool right) {
        ++done_;
        right_ += right;
        double seconds = std::chrono::duration<double>(Clock::now() - began_).count();
        double left = seconds / static_cast<double>(done_) * static_cast<double>(total_ - done_);
        if (done_ % std::max<int64_t>(1, total_ / 20) != 0 || done_ == total_) return;
        console_.event("progress", join("\"phase\": \"eval\", \"done\": ", done_, ", \"total\": ", total_,
                                        ", \"right\": ", right_, ", \"left_s\": ", left));
        console_.note(join(done_, " of ", total_, " prompts, all right in ",
                           percent(static_cast<double>(right_) / static_cast<double>(done_)), ", ",
                           duration_text(left), " left"));
    }

private:
    using Clock = std::chrono::steady_clock;
    Console& console_;
    int64_t total_, done_ = 0, right_ = 0;
    Clock::time_point began_ = Clock::now();
};

nlohmann::ordered_json seen_json(const world::Seen& seen) {
    nlohmann::ordered_json things = nlohmann::ordered_json::array();
    for (const auto& thing : seen.things)
        things.push_back({{"shape", name_of(thing.shape)},
                          {"color", name_of(thing.color)},
                          {"size", name_of(thing.size)},
                          {"motion", name_of(thing.motion)},
                          {"match", std::round(thing.match * 1000) / 1000}});
    return {{"things", things},
            {"background", {{"color", name_of(seen.background)}, {"pattern", name_of(seen.pattern)}}},
            {"camera", name_of(seen.camera)}};
}

nlohmann::ordered_json report(const std::vector<Result>& results) {
    std::vector<world::Asked> all;
    nlohmann::ordered_json prompts = nlohmann::ordered_json::array();
    double psnr_sum = 0, reconstruction = 0;
    int64_t images = 0, kept = 0;
    for (const Result& r : results) {
        all.push_back(r.asked);
        world::Verdict verdict = world::judge(r.asked.seen, r.asked.scene, r.asked.caption.stated);
        auto list = values(verdict);
        nlohmann::ordered_json entry = {{"prompt", r.asked.caption.text}, {"all", verdict.all()}};
        for (size_t a = 0; a < list.size(); ++a)
            if (list[a]) entry[std::string(world::kAttributes[a])] = *list[a];
        if (r.from_image) {
            entry["first_frame_psnr"] = std::round(r.psnr * 100) / 100;
            psnr_sum += r.psnr;
            ++images;
            kept += r.psnr >= 30;
        }
        if (r.reconstructed) {
            entry["psnr"] = std::round(r.psnr * 100) / 100;
            reconstruction += r.psnr / static_cast<double>(results.size());
        }
        entry["seen"] = seen_json(r.asked.seen);
        prompts.push_back(std::move(entry));
    }
    world::Tally tally = world::tally(all), chance = world::tally_shuffled(all);
    nlohmann::ordered_json json = {{"prompts", results.size()}};
    for (size_t a = 0; a < world::kAttributes.size(); ++a)
        json["attributes"][std::string(world::kAttributes[a])] = {{"asked", tally.asked[a]},
                                                                  {"right", tally.right[a]},
                                                                  {"share", tally.share(a)},
                                                                  {"chance", chance.share(a)}};
    json["all"] = {{"right", tally.all_right}, {"share", tally.share_all()}, {"chance", chance.share_all()}};
    if (images > 0)
        json["image_to_video"] = {{"clips", images},
                                  {"first_frame_psnr_mean", psnr_sum / static_cast<double>(images)},
                                  {"first_frame_kept", kept}};
    if (results[0].reconstructed) json["reconstruction_psnr_mean"] = reconstruction;
    json["answers"] = std::move(prompts);
    return json;
}

void print(Console& console, const nlohmann::ordered_json& json) {
    console.line("attribute    asked   right   by chance");
    auto row = [&](std::string name, const std::string& asked, double share, double chance) {
        name.resize(12, ' ');
        std::string right = percent(share);
        console.line(name + std::string(6 - std::min<size_t>(6, asked.size()), ' ') + asked +
                     std::string(9 - std::min<size_t>(9, right.size()), ' ') + right + "   " +
                     percent(chance));
    };
    for (const auto& [name, a] : json["attributes"].items())
        row(name, a["asked"].dump(), a["share"], a["chance"]);
    row("all at once", json["prompts"].dump(), json["all"]["share"], json["all"]["chance"]);
    if (json.contains("image_to_video")) {
        const auto& i = json["image_to_video"];
        console.line(join("picture kept as the first frame (30 dB or more): ",
                          i["first_frame_kept"].get<int64_t>(), " of ", i["clips"].get<int64_t>(), ", mean ",
                          std::round(i["first_frame_psnr_mean"].get<double>() * 10) / 10, " dB"));
    }
    if (json.contains("reconstruction_psnr_mean"))
        console.line(join("clips through the autoencoder: mean ",
                          std::round(json["reconstruction_psnr_mean"].get<double>() * 100) / 100, " dB"));
}

void eval_world(Settings settings, const EvalOptions& o, const Common& common) {
    if (settings.integer("threads") > 0) set_threads(static_cast<int>(settings.integer("threads")));
    check_input(o.noise == 1 || (!o.drawn && !o.reconstructed && o.kept.empty()),
                "--noise is for what a model makes; leave it out with --drawn, --reconstructed and --kept");
    Console console(common);
    std::optional<ModelFolder> model;
    std::optional<BatchPipeline> pipeline;
    if (!o.drawn && o.kept.empty()) {
        model.emplace(paths_of_model(settings));
        take_defaults(settings, *model);
        pipeline.emplace(*model, settings.placement());
    }
    double image_share = o.reconstructed ? 0 : o.image_share;
    // The form of the world's clips, unless another one is asked for.
    for (auto [name, value] :
         {std::pair("width", "160"), std::pair("height", "96"), std::pair("frames", "33")})
        if (!settings.is_set(name)) settings.set(name, value, "eval");
    Request request = settings.request();
    Bucket bucket{request.frames, request.size.height, request.size.width};
    std::vector<Result> results(static_cast<size_t>(o.prompts));
    std::vector<int64_t> plain, with_picture;
    for (int64_t i = 0; i < o.prompts; ++i) {
        Result& result = results[static_cast<size_t>(i)];
        result.asked.scene = world::make_scene(request.seed, o.first + i, bucket, settings.number("fps"),
                                               world::Split::held_out);
        result.asked.caption =
            world::make_caption(result.asked.scene, 0, {.wording = world::Split::held_out, .complete = true});
        // Evenly spread over the prompts.
        result.from_image = std::floor(static_cast<double>(i + 1) * image_share) >
                            std::floor(static_cast<double>(i) * image_share);
        (result.from_image ? with_picture : plain).push_back(i);
    }
    if (!o.keep.empty()) make_folders(o.keep);
    // What cannot be written is said before the work.
    if (!o.out.empty()) {
        AtomicFile trial(o.out);
    }
    if (!o.sheet.empty()) check_png(o.sheet);
    ContactSheet sheet(std::min<int64_t>(o.prompts, 24));
    Pace pace(console, o.prompts);
    for (const std::vector<int64_t>* list : {&plain, &with_picture}) {
        for (size_t first = 0; first < list->size(); first += static_cast<size_t>(o.batch)) {
            if (interrupted()) throw Cancelled("stopped before the last prompt");
            size_t count = std::min(static_cast<size_t>(o.batch), list->size() - first);
            auto result_of = [&](size_t k) -> Result& {
                return results[static_cast<size_t>((*list)[first + k])];
            };
            // Drawing and judging are work of one thread a clip.
            constexpr int64_t kCost = int64_t{1} << 20;
            std::vector<Tensor> truths(count), clips;
            parallel_for(static_cast<int64_t>(count), kCost, [&](int64_t k) {
                truths[static_cast<size_t>(k)] =
                    world::render(result_of(static_cast<size_t>(k)).asked.scene, bucket);
            });
            std::vector<BatchItem> items;
            for (size_t k = 0; k < count; ++k)
                items.push_back({result_of(k).asked.caption.text,
                                 request.seed + static_cast<uint64_t>(o.first + (*list)[first + k]),
                                 result_of(k).from_image ? truths[k].select(0) : Tensor(), truths[k]});
            if (!o.kept.empty()) {
                for (size_t k = 0; k < count; ++k)
                    clips.push_back(kept_frames(o.kept, o.first + (*list)[first + k], bucket));
            }
            if (clips.empty())
                clips = o.drawn           ? truths
                        : o.reconstructed ? pipeline->reconstruct(truths)
                                          : pipeline->generate(
                                                request, items, [] { return interrupted(); }, o.noise);
            parallel_for(static_cast<int64_t>(count), kCost, [&](int64_t i) {
                size_t k = static_cast<size_t>(i);
                Result& result = result_of(k);
                if (result.from_image) result.psnr = world::psnr(clips[k].select(0), truths[k].select(0));
                result.reconstructed = o.reconstructed;
                if (o.reconstructed) result.psnr = world::psnr(clips[k], truths[k]);
                result.asked.seen = world::look_at(clips[k]);
            });
            for (size_t k = 0; k < count; ++k) {
                if (!o.keep.empty())
                    write_safetensors(frames_file(o.keep, o.first + (*list)[first + k]),
                                      {{"frames", clips[k].contiguous()}});
                const world::Asked& asked = result_of(k).asked;
                bool right = world::judge(asked.seen, asked.scene, asked.caption.stated).all();
                sheet.put((*list)[first + k], clips[k], right, asked.caption.text);
                pace.one_more(right);
            }
        }
    }
    nlohmann::ordered_json json = report(results);
    if (!o.out.empty()) write_text_file(o.out, json.dump(1) + "\n");
    if (!o.sheet.empty()) sheet.write(o.sheet);
    print(console, json);
    json.erase("answers");
    std::string fields = json.dump();
    console.event("scores", fields.substr(1, fields.size() - 2));
}

}  // namespace

void add_eval(CLI::App& app, Common& common) {
    CLI::App* eval = app.add_subcommand("eval", "Measure what a model makes");
    eval->require_subcommand(1);
    CLI::App* command = eval->add_subcommand(
        "world",
        "Prompts of the drawn world that training never sees; what the videos show is measured from pixels");
    command->footer(
        "Every prompt names combinations and uses wordings that are kept from training. Measured: colour, "
        "shape, size,\n"
        "motion, number of objects and background, as far as the prompt states them; beside it what the same "
        "videos\n"
        "would score for other prompts (chance). --drawn judges drawn clips instead: the judge's own "
        "errors; --reconstructed\n"
        "what the model's autoencoder makes of them, and prints their PSNR: what a transformer can reach at "
        "best.\n"
        "  sana eval world --prompts 500 --out scores.json --sheet sheet.png\n"
        "  sana eval world --drawn --prompts 200");
    auto settings = std::make_shared<Settings>();
    auto o = std::make_shared<EvalOptions>();
    add_parameters(*command, *settings,
                   {"model", "transformer", "tokenizer", "prompt-template", "negative-prompt", "width",
                    "height", "frames", "fps", "steps", "guidance", "sampler", "flow-shift", "seed", "rng",
                    "device", "precision", "vae-precision", "threads"});
    command->add_option("--prompts", o->prompts, "How many (default 500)")
        ->check(CLI::Range(int64_t{1}, int64_t{1000000}));
    command->add_option("--first", o->first, "Number of the first prompt")
        ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
    command
        ->add_option("--image-share", o->image_share,
                     "Share of the prompts that get the first frame as a picture (default 0.2)")
        ->check(CLI::Range(0.0, 1.0));
    command->add_option("--batch", o->batch, "Clips that are made side by side (default 32)")
        ->check(CLI::Range(int64_t{1}, int64_t{4096}));
    CLI::Option* drawn = command->add_flag("--drawn", o->drawn, "Judge drawn clips instead of a model's");
    command
        ->add_flag("--reconstructed", o->reconstructed,
                   "Judge drawn clips after the model's autoencoder alone")
        ->excludes(drawn);
    command
        ->add_option(
            "--noise", o->noise,
            "Begin with the drawn clips under noise of this level instead of with noise alone (1): at "
            "which levels a model goes wrong")
        ->check(CLI::Range(0.01, 1.0));
    command->add_option("--keep", o->keep, "Keep the frames of every clip here, by number of the prompt")
        ->type_name("FOLDER");
    command->add_option("--kept", o->kept, "Judge the frames that --keep of an earlier run wrote")
        ->type_name("FOLDER")
        ->excludes(drawn);
    command->add_option("--out", o->out, "All scores and answers as JSON")->type_name("FILE");
    command->add_option("--sheet", o->sheet, "Picture of the first 24 clips, their prompts beside it as .txt")
        ->type_name("FILE.png");
    command->callback([=, &common] { eval_world(*settings, *o, common); });
}

}  // namespace sana::apps
