#include "apps/train_data.h"

#include "ops/tape.h"
#include "pipeline/resize.h"
#include "train/data/dataset.h"
#include "train/vae_objective.h"
#include "train/world/world_source.h"

namespace sana::apps {

namespace {

std::unique_ptr<Source> drawn(const Settings& s, const Bucket& bucket, int64_t batch, world::Split split,
                              uint64_t offset) {
    world::WorldSourceOptions o;
    o.seed = static_cast<uint64_t>(s.integer("seed")) + offset;
    o.buckets = {bucket};
    o.batch = batch;
    o.split = split;
    return std::make_unique<world::WorldSource>(o);
}

std::unique_ptr<Source> from_files(const Settings& s, const std::string& path, const Bucket& bucket,
                                   int64_t batch, const std::function<void(const std::string&)>& report) {
    DatasetOptions o;
    o.path = path;
    o.buckets = {bucket};
    o.batch = batch;
    o.seed = static_cast<uint64_t>(s.integer("seed"));
    o.threads = static_cast<int>(s.integer("workers"));
    o.fit = [](const Tensor& picture, int64_t height, int64_t width) {
        return fit_image(picture, {width, height}, Fit::crop);
    };
    o.report = report;
    return std::make_unique<Dataset>(o);
}

}  // namespace

TrainSources make_sources(const Settings& s, const std::function<void(const std::string&)>& report) {
    std::string data = s.text("data"), held_out = s.text("held-out"), pictures = s.text("pictures");
    Bucket clip{s.integer("frames"), s.integer("height"), s.integer("width")},
        picture{1, clip.height, clip.width};
    int64_t batch = s.integer("batch"), picture_batch = s.integer("picture-batch");
    TrainSources out;
    bool draw = data == "world";
    out.videos =
        draw ? drawn(s, clip, batch, world::Split::training, 0) : from_files(s, data, clip, batch, report);
    if (held_out == "world" || (held_out.empty() && draw)) {
        out.held_out = drawn(s, clip, batch, world::Split::held_out, 1);
    } else if (!held_out.empty()) {
        out.held_out = from_files(s, held_out, clip, batch, report);
    }
    if (s.integer("image-interval") > 0) {
        bool drawn_pictures = pictures == "world" || (pictures.empty() && draw);
        check_input(drawn_pictures || !pictures.empty(),
                    "image-interval asks for pictures; say where they are with pictures");
        out.pictures = drawn_pictures ? drawn(s, picture, picture_batch, world::Split::training, 2)
                                      : from_files(s, pictures, picture, picture_batch, report);
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

}  // namespace sana::apps
