// Text to video and image to video (diffusers SanaVideoPipeline, SanaImageToVideoPipeline): a request in, frames out.
// Parts are loaded when they are needed and given back when they are done, so that one at a time is in memory.
#pragma once

#include "pipeline/memory_plan.h"
#include "pipeline/model_folder.h"
#include "pipeline/placement.h"
#include "pipeline/request.h"

namespace sana {

// A request resolved against a model.
struct Plan {
    Size size;    // at which the model works
    Size output;  // of the frames that come out
    int64_t frames = 0;
    Shape latents;  // [1,t,h,w,Z]
    SamplerKind sampler = SamplerKind::dpm_solver;
    double flow_shift = 0;
};

// Text states of one or two prompts: with guidance the negative first.
struct TextFeatures {
    Tensor states;  // [B,L,C], zero where masked
    Tensor mask;    // [B,L] int32
};

class VideoPipeline {
public:
    explicit VideoPipeline(const ModelFolder& model, const Placement& placement = {});

    // Checks a request against the model; InputError says what does not fit and what would. Notes say what is adjusted.
    Plan plan(const Request& request, const Hooks& hooks = {}) const;

    // How a request goes into the budget of the placement; all that follows keeps to it. generate() does it by itself.
    const MemoryPlan& fit(const Request& request, const Plan& plan, const Hooks& hooks = {});

    // The whole run.
    void generate(const Request& request, const Hooks& hooks);

    // Its parts, in order. What they take and give, hooks included, is in the host's memory, whatever the device.
    TextFeatures encode_text(const Request& request, const Hooks& hooks = {});
    Tensor noise(const Request& request, const Plan& plan) const;       // [1,t,h,w,Z] fp32
    Tensor encode_image(const Tensor& image, const Hooks& hooks = {});  // [1,1,H,W,3] in -1..1 -> [1,1,h,w,Z]
    Tensor denoise(const Request& request, const Plan& plan, Tensor latents, const Tensor& image_latent,
                   const TextFeatures& text, const Hooks& hooks);
    // Frames go to hooks.frames; floats [T,H,W,3] in 0..1 to `floats` when given.
    void decode(const Tensor& latents, Size output, VaeTiling tiling, const Hooks& hooks,
                const std::function<void(const Tensor&)>& floats = {});

    const ModelFolder& model() const { return model_; }
    const Placement& placement() const { return placement_; }

private:
    void report(const Hooks& hooks, Phase phase, int64_t done, int64_t total) const;

    const ModelFolder& model_;
    Placement placement_;
    MemoryPlan memory_;
};

// Texts through the encoder, side by side and without padding: rows of the length that each text may have at most.
TextFeatures text_features(const Gemma2& encoder, const std::vector<PromptTokens>& texts, bool soft_cap);

// Latents [1,t,h,w,Z] on the autoencoder's device -> chunks of frames [T,H,W,3] fp32 in 0..1, on the host.
void decode_frames(const Vae& vae, const Tensor& latents, Size output, VaeDecodeOptions options,
                   const std::function<void(const Tensor&)>& frames);

// [..,3] in 0..1 -> uint8, rounded to nearest (ties to even), as the reference's picture output.
Tensor to_uint8(const Tensor& frames);
// [H,W,3] uint8 -> [1,1,H,W,3] in -1..1
Tensor from_uint8(const Tensor& image);

}  // namespace sana
