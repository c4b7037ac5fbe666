// The models of a preset on random weights, as subjects of a benchmark.
#pragma once

#include "apps/bench_report.h"
#include "pipeline/presets.h"

namespace sana::apps {

struct ModelBench {
    std::string preset = "sana-video-2b-480p";
    Device device = kCpu;
    DType dtype = DType::F32;
    bool fp8 = false;                            // the transformer's large products in E4M3
    int64_t width = 0, height = 0, frames = 81;  // of the video; 0: the size that the preset was released for
    int64_t batch = 2;                           // of the transformer; even: guidance pairs
    int64_t layers = 0;                          // of the transformer or text encoder; 0: all
    std::vector<int64_t> lengths = {
        519, 300};          // of the texts: a prompt behind its instruction, and a negative one
    bool padded = false;    // the texts as one padded batch
    int64_t lora_rank = 0;  // train-step: of additions that are trained instead of the weights; 0: none
    bool graph = false;     // dit: recorded and launched as a whole
};

// The preset with as many layers as asked for, the latents of the video, and its size in words.
Preset preset_of(const ModelBench& bench);
Shape latents_of(const ModelBench& bench, const Preset& preset, int64_t batch);
std::string video_text(const ModelBench& bench, const Preset& preset);
// Of the video: what was asked for, else what the preset was released for.
Size size_of_video(const ModelBench& bench, const Preset& preset);

// One step of the transformer: both guidance branches.
Subject dit_subject(const ModelBench& bench);
// The text encoder on all texts.
Subject text_subject(const ModelBench& bench);
// Latents to frames, which stay on the device.
Subject vae_subject(const ModelBench& bench);

}  // namespace sana::apps
