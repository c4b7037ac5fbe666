#include "apps/train_data.h"

#include "ops/tape.h"
#include "train/vae_objective.h"
#include "train/world/world_source.h"

namespace sana::apps {

TrainSources make_sources(const Settings& s) {
    std::string data = s.text("data");
    check_input(data == "world", "data is '", data, "'; 'world' (clips drawn by the program) is expected");
    Bucket clip{s.integer("frames"), s.integer("height"), s.integer("width")};
    uint64_t seed = static_cast<uint64_t>(s.integer("seed"));
    auto drawn = [&](Bucket bucket, int64_t batch, world::Split split, uint64_t offset) {
        world::WorldSourceOptions o;
        o.seed = seed + offset;
        o.buckets = {bucket};
        o.batch = batch;
        o.split = split;
        return std::make_unique<world::WorldSource>(o);
    };
    TrainSources out;
    out.videos = drawn(clip, s.integer("batch"), world::Split::training, 0);
    out.held_out = drawn(clip, s.integer("batch"), world::Split::held_out, 1);
    if (s.integer("image-interval") > 0) {
        out.pictures =
            drawn({1, clip.height, clip.width}, s.integer("picture-batch"), world::Split::training, 2);
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
