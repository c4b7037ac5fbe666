// What a user asks for, and what is told on the way.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "core/tensor.h"
#include "models/vae.h"
#include "pipeline/resize.h"
#include "sampling/sampler.h"

namespace sana {

enum class Binning { automatic, on, off };
enum class Rng { philox, torch };

struct Request {
    std::string prompt, negative_prompt;
    Tensor image;  // [H,W,3] uint8: image to video; none: text to video
    Fit fit = Fit::crop;
    Size size{832, 480};
    Binning binning = Binning::automatic;
    int64_t frames = 81;
    int64_t steps = 50;
    double guidance = 6;
    std::optional<SamplerKind> sampler;  // none: the model's own
    std::optional<double> flow_shift;    // none: the model's own
    double step_cache = 0;               // threshold of the step cache (sampling/step_cache.h); 0: off
    int64_t motion_score = 0;            // > 0: " motion score: N." behind the prompt
    uint64_t seed = 0;
    Rng rng = Rng::philox;
    bool keep_case = false;  // prompts as they are instead of in lower case
    bool soft_cap = true;    // attention score cap of the text encoder
    VaeTiling tiling;
};

enum class Phase { load, text, image, denoise, decode };
std::string_view name_of(Phase phase);

struct Progress {
    Phase phase;
    int64_t done, total;  // steps, latent frames, ...
};

// Everything is called on the thread that generates. A hook may throw: the run ends with that exception.
struct Hooks {
    std::function<void(const Progress&)> progress;
    std::function<void(const std::string& note)> note;  // something was adjusted, in words
    std::function<bool()> cancelled;                    // asked between steps and chunks
    // The estimate of the clean latents [1,t,h,w,Z] after a step, for previews.
    std::function<void(int64_t step, const Tensor& clean)> preview;
    std::function<void(const Tensor& latents)> latents;  // before decoding: nothing computed is lost
    std::function<void(const Tensor& frames)> frames;    // finished frames [T,H,W,3] uint8, in order
};

}  // namespace sana
