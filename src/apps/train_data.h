// The data of a training run, from its settings.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>

#include "core/graph_cache.h"
#include "pipeline/parameters.h"
#include "pipeline/resolution.h"
#include "pipeline/vae.h"
#include "train/flow.h"
#include "train/prefetch.h"
#include "train/trainer.h"

namespace sana::apps {

// Sizes of batches, from the settings buckets, or width, height and frames. Batches of clips take those of several frames,
// or all where there are only pictures; batches of pictures take every height and width, with one frame.
struct TrainBuckets {
    std::vector<Bucket> clips, pictures;
    // InputError, with what to do, for a size that the model cannot have.
    void check(const SizeRules& rules) const;
};
TrainBuckets train_buckets(const Settings& settings);

struct TrainSources {
    std::unique_ptr<Source> videos, pictures, held_out;

    TrainData data(const Settings& settings, Source::Kept kept = {}) const {
        return {.videos = videos.get(),
                .pictures = pictures.get(),
                .held_out = held_out.get(),
                .kept = std::move(kept),
                .threads = static_cast<int>(settings.integer("workers"))};
    }
};

// From the settings data, pictures, held-out and held-out-share: 'world', or files (docs/data.md).
// report: what cannot be used.
TrainSources make_sources(const Settings& settings, const std::function<void(const std::string&)>& report);

// Latents that the autoencoder makes now, of every batch.
FlowObjective::Latents online_latents(const Vae& vae);

// Latents and text states of clips from files, kept in the folder that the setting cache names; latents of drawn clips that
// come again (the setting clips), kept in the device's memory.
class TrainCache {
public:
    // Nothing is kept (on() is false) when all clips are drawn and none comes again, or when cache is 'none'.
    TrainCache(const Settings& settings, Device device, DType compute,
               const std::function<void(const std::string&)>& report);
    bool on() const { return in_memory_ || latents_.has_value(); }
    TensorCache* text() { return text_ ? &*text_ : nullptr; }
    // Clip by clip: those that are not kept are made, and kept.
    FlowObjective::Latents latents(const Vae& vae);
    Source::Kept kept();
    std::string summary() const;

private:
    Tensor find(const Sample& sample, const Bucket& bucket);
    // Of the samples `which` of a batch, into their places in `all`.
    void make_latents(const Vae& vae, const Batch& batch, const std::vector<size_t>& which,
                      std::vector<Tensor>& all);

    std::optional<TensorCache> latents_, text_;
    bool in_memory_;  // drawn clips that come again: their latents stay on the device, by key
    std::mutex mutex_;
    std::map<std::string, Tensor> memory_;
    GraphCache encoders_;  // a recording for each form of a clip
    Staging staging_;
    int64_t used_ = 0, made_ = 0;  // latents
};

}  // namespace sana::apps
