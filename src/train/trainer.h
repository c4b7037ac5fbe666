// The training loop: batches in order, gradients, optimiser steps, records, held-out losses, checkpoints. Every random
// number follows from the seed and the batch's position, so that a run that resumes from a checkpoint makes the very same
// steps as one that was never interrupted.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "train/checkpoints.h"
#include "train/objective.h"
#include "train/slab.h"

namespace sana {

// After the warm-up: stays; falls to a tenth along a cosine; falls to 0 along a line.
enum class RateSchedule { constant, cosine, linear };

struct TrainOptions {
    std::string folder;        // of the run: checkpoints/, model/, metrics.jsonl, tensorboard files
    int64_t steps = 1000;      // optimiser steps in all
    double minutes = 0;        // stops with a checkpoint after so long; 0: no limit
    int64_t accumulation = 1;  // batches a step
    int64_t warmup = 500;      // steps in which the rate grows from 0
    RateSchedule schedule = RateSchedule::constant;
    StepOptions step;  // step.rate: after warm-up
    SlabOptions slab;
    uint64_t seed = 0;
    int64_t image_interval = 0;  // every so many steps a batch of pictures; 0: none
    int64_t log_every = 10, checkpoint_every = 500, hold_out_every = 250, hold_out_batches = 4,
            sample_every = 0;
    int64_t keep = 2;                // checkpoints
    bool small_checkpoints = false;  // moments in bf16: half the size, no longer exact
    bool resume = false;
    // Processes that train together: a step takes the mean of their gradients, each of batches of its own. The first one
    // keeps the records and the checkpoints. nullptr: this one alone.
    Group* group = nullptr;
};

struct TrainProgress {
    int64_t step = 0, steps = 0;
    double loss = 0, norm = 0, rate = 0, seconds_a_step = 0, seconds_left = 0;
};

struct TrainHooks {
    std::function<void(const TrainProgress&)> progress;
    std::function<void(const std::string&)> note;
    std::function<bool()> cancelled;
    // After the model was written to folder/model: make samples for this step there.
    std::function<void(int64_t step, const std::string& model)> samples;
    // Before the model is written: measure what belongs to it.
    std::function<void()> before_write;
};

struct TrainData {
    const Source* videos = nullptr;
    const Source* pictures = nullptr;  // for image_interval
    const Source* held_out = nullptr;
    bool pixels = true;      // whether batches need their videos
    Source::Kept kept = {};  // see Batch::latents
    int threads = 2;
};

struct TrainResult {
    int64_t step = 0;
    double loss = 0, held_out = 0, seconds_a_step = 0;
    std::string checkpoint, model;
};

// A loss or gradient that is not finite stops the run with the step, the place and the last good checkpoint in the error.
TrainResult train(Objective& objective, const TrainData& data, const TrainOptions& options,
                  const TrainHooks& hooks = {});

// The rate of step 1, 2, ...
double rate_at(const TrainOptions& options, int64_t step);

}  // namespace sana
