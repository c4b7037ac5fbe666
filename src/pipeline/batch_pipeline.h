// Many clips of one form side by side, every part of the model loaded once: for evaluations of models that fit the device
// whole.
#pragma once

#include "pipeline/video_pipeline.h"

namespace sana {

struct BatchItem {
    std::string prompt;
    uint64_t seed = 0;
    Tensor image = {};  // [H,W,3] uint8; all items of a batch have one, or none has
    // [T,H,W,3] uint8, of the form's size and length: what generation begins with at a level of noise below 1.
    Tensor clip = {};
};

class BatchPipeline {
public:
    BatchPipeline(const ModelFolder& model, const Placement& placement);

    // Frames [T,H,W,3] uint8 of each item: what VideoPipeline makes of it, to rounding. form: what the items share; its
    // prompt, seed and picture are not used, nor is its step cache. level: of the noise that it begins with; below 1 it
    // begins with the items' clips under the noise of the first of the sampler's levels that is no higher. InputError if
    // there is none.
    std::vector<Tensor> generate(const Request& form, const std::vector<BatchItem>& items,
                                 const std::function<bool()>& cancelled = {}, double level = 1);

    // What the autoencoder alone makes of clips [T,H,W,3] uint8 whose size and length it can take: encoded (the mean) and
    // decoded.
    std::vector<Tensor> reconstruct(const std::vector<Tensor>& clips) const;

private:
    Tensor decode(const Tensor& latents, const Size& output) const;  // [1,t,h,w,Z] -> [T,H,W,3] uint8
    Tensor encode(const Tensor& clip) const;                         // the way back, normalised, fp32
    TextFeatures encode_texts(const Request& form, const std::vector<BatchItem>& items) const;
    Tensor picture_latents(const Request& form, const Plan& plan, const std::vector<BatchItem>& items) const;

    const ModelFolder& model_;
    Placement placement_;
    VideoPipeline single_;  // for what concerns one request
    Tokenizer tokenizer_;
    Gemma2 text_;
    DiT dit_;
    Vae vae_;
};

}  // namespace sana
