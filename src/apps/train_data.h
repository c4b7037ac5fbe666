// The data of a training run, from its settings.
#pragma once

#include <functional>
#include <memory>

#include "pipeline/parameters.h"
#include "pipeline/vae.h"
#include "train/flow.h"
#include "train/prefetch.h"
#include "train/trainer.h"

namespace sana::apps {

struct TrainSources {
    std::unique_ptr<Source> videos, pictures, held_out;

    TrainData data(const Settings& settings) const {
        return {.videos = videos.get(),
                .pictures = pictures.get(),
                .held_out = held_out.get(),
                .threads = static_cast<int>(settings.integer("workers"))};
    }
};

// From the settings data, pictures and held-out: 'world', or files (docs/data.md). report: what cannot be used.
TrainSources make_sources(const Settings& settings, const std::function<void(const std::string&)>& report);

// Latents that the autoencoder makes now, of every batch.
FlowObjective::Latents online_latents(const Vae& vae);

}  // namespace sana::apps
