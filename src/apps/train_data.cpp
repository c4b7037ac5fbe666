#include "apps/train_data.h"

#include <algorithm>
#include <filesystem>

#include "core/hash.h"
#include "io/text_file.h"
#include "ops/layout.h"
#include "ops/tape.h"
#include "pipeline/model_folder.h"
#include "pipeline/resize.h"
#include "train/data/dataset.h"
#include "train/vae_objective.h"
#include "train/world/world_source.h"

namespace sana::apps {

namespace {

constexpr int64_t kPixelBytes = int64_t{256} << 20;  // of clips that are copied to the device together

using Buckets = std::vector<Bucket>;

std::unique_ptr<Source> drawn(const Settings& s, const Buckets& buckets, int64_t batch, world::Split split,
                              uint64_t offset, int64_t clips = 0, bool emphasise = false) {
    world::WorldSourceOptions o;
    o.clips = clips;
    o.shards = clips == 0 ? 1 : s.integer("processes") * s.integer("accumulation");
    o.seed = static_cast<uint64_t>(s.integer("seed")) + offset;
    o.buckets = buckets;
    o.batch = batch;
    o.split = split;
    if (emphasise) {
        o.emphasis = s.text("emphasis");
        o.emphasis_share = s.number("emphasis-share");
    }
    return std::make_unique<world::WorldSource>(o);
}

// held_out: the share that is not in it.
std::unique_ptr<Dataset> from_files(const Settings& s, const std::string& path, const Buckets& buckets,
                                    int64_t batch, const std::function<void(const std::string&)>& report,
                                    double held_out = 0) {
    DatasetOptions o;
    o.path = path;
    o.buckets = buckets;
    o.held_out = held_out;
    o.batch = batch;
    o.seed = static_cast<uint64_t>(s.integer("seed"));
    o.threads = static_cast<int>(s.integer("workers"));
    o.fit = [](const Tensor& picture, int64_t height, int64_t width) {
        return fit_image(picture, {width, height}, Fit::crop);
    };
    o.report = report;
    return std::make_unique<Dataset>(o);
}

bool same_place(const std::string& a, const std::string& b) {
    std::error_code error;
    return std::filesystem::equivalent(a, b, error);
}

std::string text_of(const Bucket& b) { return join(b.frames, 'x', b.height, 'x', b.width); }

std::string latents_key(const Sample& sample, const Bucket& bucket) {
    return join("latents of ", sample.hash, ", ", text_of(bucket), " at ", sample.fps);
}

}  // namespace

void TrainBuckets::check(const SizeRules& rules) const {
    for (const Buckets& list : {clips, pictures})
        for (const Bucket& b : list)
            check_clip(rules, {b.width, b.height}, b.frames, "a size of " + text_of(b) + ": ");
}

TrainBuckets train_buckets(const Settings& s) {
    Buckets all = {{s.integer("frames"), s.integer("height"), s.integer("width")}};
    if (s.given("buckets")) {
        for (const char* name : {"width", "height", "frames"})
            check_input(!s.is_set(name), "buckets and ", name,
                        " are both given; buckets say the sizes: leave ", name, " out");
        all = parse_buckets(s.text("buckets"));
    }
    bool pictures_alone = std::all_of(all.begin(), all.end(), [](const Bucket& b) { return b.frames == 1; });
    TrainBuckets out;
    auto include = [](Buckets& list, const Bucket& b) {
        if (std::find(list.begin(), list.end(), b) == list.end()) list.push_back(b);
    };
    for (const Bucket& b : all) {
        if (b.frames > 1 || pictures_alone) include(out.clips, b);
        check_input(b.frames > 1 || pictures_alone || s.integer("image-interval") > 0, "the bucket ",
                    text_of(b),
                    " is for pictures, and image-interval asks for none; set image-interval, or "
                    "leave the bucket out");
        include(out.pictures, {1, b.height, b.width});
    }
    return out;
}

TrainSources make_sources(const Settings& s, const std::function<void(const std::string&)>& report) {
    std::string data = s.text("data"), held_out = s.text("held-out"), pictures = s.text("pictures");
    TrainBuckets buckets = train_buckets(s);
    int64_t batch = s.integer("batch"), picture_batch = s.integer("picture-batch");
    double share = s.number("held-out-share");
    TrainSources out;
    bool draw = data == "world";
    check_input(draw || !s.given("emphasis"), "emphasis is of drawn clips, and data is ", data,
                "; leave it out, or draw the clips (data = \"world\")");
    check_input(share == 0 || held_out.empty(),
                "held-out-share and held-out are both given; leave one of them out");
    check_input(share == 0 || !draw,
                "held-out-share is of clips from files; of drawn ones a part is held out without it");
    if (draw) {
        out.videos = drawn(s, buckets.clips, batch, world::Split::training, 0, s.integer("clips"), true);
    } else {
        std::unique_ptr<Dataset> files = from_files(s, data, buckets.clips, batch, report, share);
        if (share > 0) out.held_out = files->held_out();
        out.videos = std::move(files);
    }
    if (held_out == "world" || (held_out.empty() && draw)) {
        out.held_out = drawn(s, buckets.clips, batch, world::Split::held_out, 1);
    } else if (!held_out.empty()) {
        out.held_out = from_files(s, held_out, buckets.clips, batch, report);
    }
    if (s.integer("image-interval") > 0) {
        bool drawn_pictures = pictures == "world" || (pictures.empty() && draw);
        check_input(drawn_pictures || !pictures.empty(),
                    "image-interval asks for pictures; say where they are with pictures");
        // A clip's first frame serves as a picture, but not that of a clip that is held out.
        if (drawn_pictures) {
            out.pictures = drawn(s, buckets.pictures, picture_batch, world::Split::training, 2);
        } else {
            out.pictures = from_files(s, pictures, buckets.pictures, picture_batch, report,
                                      same_place(pictures, data) ? share : 0);
        }
    }
    return out;
}

FlowObjective::Latents online_latents(const Vae& vae) {
    return [&vae](const Batch& batch, const Draws&) {
        NoTape frozen;
        Tensor mean = vae.encode(video_tensor(batch, vae.dtype(), vae.device())).mean;
        return vae.normalise(mean.to(DType::F32));
    };
}

TrainCache::TrainCache(const Settings& s, Device device, DType compute,
                       const std::function<void(const std::string&)>& report)
    : in_memory_(s.text("data") == "world" && s.integer("clips") > 0), encoders_(device, report) {
    if (in_memory_) return;
    auto files = [&](const char* name) { return s.given(name) && s.text(name) != "world"; };
    if (s.text("cache") == "none" || !(files("data") || files("pictures") || files("held-out"))) return;
    std::string model = s.text("model"),
                folder = s.given("cache") ? s.text("cache") : s.text("out") + "/cache",
                maker = join(device == kCpu ? "cpu" : "cuda", ' ', compute);
    ModelPaths paths;
    paths.folder = model;
    ModelFolder parts(paths);
    std::map<std::string, std::string> weights;
    for (const auto& [part, fingerprint] : parts.fingerprints()) weights[part] = fingerprint;
    auto fingerprint = [&](const std::string& part) {
        return join(weights[part], ' ', sha256_hex(read_text_file(model + "/" + part + "/config.json")), ' ',
                    maker);
    };
    latents_.emplace(folder, fingerprint("vae"), report);
    if (s.flag("train-text-encoder")) return;
    std::string tokenizer = s.given("tokenizer") ? s.text("tokenizer") : model + "/tokenizer";
    if (is_folder(tokenizer)) tokenizer += "/tokenizer.json";
    text_.emplace(folder,
                  join(fingerprint("text_encoder"), ' ', sha256_hex(read_text_file(tokenizer)), ' ',
                       s.integer("text-tokens")),
                  report);
}

FlowObjective::Latents TrainCache::latents(const Vae& vae) {
    return [this, &vae](const Batch& batch, const Draws&) {
        NoTape frozen;
        std::vector<Tensor> all(batch.samples.size());
        std::vector<size_t> missing;
        for (size_t i = 0; i < all.size(); ++i) {
            // Another visit may have made them since this batch was read ahead.
            Tensor found =
                batch.latents.at(i).defined() ? batch.latents[i] : find(batch.samples[i], batch.bucket);
            if (found.defined()) {
                all[i] = found.to(vae.device());
                ++used_;
            } else {
                missing.push_back(i);
            }
        }
        const Bucket& k = batch.bucket;
        size_t together = static_cast<size_t>(
            std::max<int64_t>(1, kPixelBytes / (k.frames * k.height * k.width * 3 * size_of(vae.dtype()))));
        for (size_t first = 0; first < missing.size(); first += together) {
            size_t last = std::min(missing.size(), first + together);
            make_latents(vae, batch,
                         {missing.begin() + static_cast<std::ptrdiff_t>(first),
                          missing.begin() + static_cast<std::ptrdiff_t>(last)},
                         all);
        }
        return concat(all, 0);
    };
}

void TrainCache::make_latents(const Vae& vae, const Batch& batch, const std::vector<size_t>& which,
                              std::vector<Tensor>& all) {
    Batch some{batch.bucket, {}, {}, {}};
    for (size_t i : which) some.videos.push_back(batch.videos[i]);
    const Bucket& k = batch.bucket;
    // One copy for all of them, from memory that the device reads directly; then clip by clip.
    Tensor pixels = staging_.take({static_cast<int64_t>(which.size()), k.frames, k.height, k.width, 3},
                                  vae.dtype(), vae.device());
    write_videos(some, pixels);
    pixels = pixels.to(vae.device());
    for (size_t n = 0; n < which.size(); ++n) {
        Tensor video = pixels.outer_slice(static_cast<int64_t>(n), 1), &latents = all[which[n]];
        Tensor mean = encoders_.run(join("encode ", video), {video},
                                    [&](const std::vector<Tensor>& x) { return vae.encode(x[0]).mean; });
        latents = vae.normalise(mean.to(DType::F32));
        ++made_;
        const Sample& sample = batch.samples[which[n]];
        if (!sample.lasting) continue;
        std::string key = latents_key(sample, batch.bucket);
        if (in_memory_) {
            std::lock_guard lock(mutex_);
            memory_[key] = latents;
        } else {
            latents_->keep(key, {{"latents", latents.to(kCpu)}});
        }
    }
}

Source::Kept TrainCache::kept() {
    if (!on()) return {};
    return [this](const Sample& sample, const Bucket& bucket) { return find(sample, bucket); };
}

Tensor TrainCache::find(const Sample& sample, const Bucket& bucket) {
    if (!sample.lasting) return {};
    std::string key = latents_key(sample, bucket);
    if (in_memory_) {
        std::lock_guard lock(mutex_);
        auto it = memory_.find(key);
        return it == memory_.end() ? Tensor() : it->second;
    }
    std::optional<TensorMap> found = latents_->find(key);
    return found && found->count("latents") != 0 ? found->at("latents") : Tensor();
}

std::string TrainCache::summary() const {
    return join("latents: ", used_, " kept ones used, ", made_, " made");
}

}  // namespace sana::apps
