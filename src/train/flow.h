// Flow matching as SANA-Video trains it (NVlabs/Sana, train_video_ivjoint.py): times, noise, targets and which frames
// count.
#pragma once

#include "models/dit/dit.h"
#include "models/gemma2/gemma2.h"
#include "text/tokenizer.h"
#include "train/data/cache.h"
#include "train/lora.h"
#include "train/objective.h"

namespace sana {

struct FlowOptions {
    double shift = 3;                // w: sigma = w s / (1 + (w - 1) s), s = t / 1000
    double mean = 0, deviation = 1;  // t = floor(1000 sigmoid(mean + deviation * n)), n ~ N(0,1)
    double image_to_video = 0;       // probability that a sample's first latent frame is given, at time 0
    double drop_caption = 0.1;       // probability of the empty caption in place of the sample's
    bool checkpoint = true;          // blocks are computed again in the backward pass
};

// sigma(t) of index t in 0..999.
double flow_sigma(int64_t t, double shift);

// One batch as the transformer gets it. Letters: B samples, T latent frames.
struct FlowBatch {
    std::vector<double> sigma;  // [B*T]: of every latent frame
    Tensor times;               // [B] or, when a first frame is given, [B,T]: floor(1000 sigma), fp32
    Tensor weight;              // [B*T]: share of a frame's elements in the loss
};
// Whether each sample goes without its caption.
std::vector<bool> dropped_captions(const FlowOptions& options, const Draws& draws, int64_t batch);
// elements: of one latent frame.
FlowBatch draw_flow(const FlowOptions& options, const Draws& draws, int64_t batch, int64_t frames,
                    int64_t elements);

// Captions as the text encoder and the transformer get them.
struct Captions {
    Tensor ids;   // [B,L] int32, padded on the right to the longest allowed
    Tensor mask;  // [B,L] int32
};
Captions tokenize_captions(const Tokenizer& tokenizer, const std::vector<std::string>& captions,
                           int64_t most);

// The transformer's loss, with the text encoder trained along or frozen.
class FlowObjective : public Objective {
public:
    // latents: the normalised latents [B,T,h,w,Z] fp32 of a batch, on the device of the transformer.
    using Latents = std::function<Tensor(const Batch&, const Draws&)>;

    // lora: its layers are trained in place of the transformer's own parameters, which stay as they are.
    // cache: of text states, for a text encoder that is not trained; captions are then encoded one by one.
    FlowObjective(DiT& dit, Gemma2& text, const Tokenizer& tokenizer, Latents latents,
                  const FlowOptions& options, bool train_text, int64_t most_tokens,
                  LoraAdapter* lora = nullptr, TensorCache* cache = nullptr);

    std::string stage() const override { return "dit"; }
    std::vector<NamedParameter> parameters() override;
    // [ids, mask] of the captions.
    std::vector<Tensor> prepare(const Batch& batch, const Draws& draws) override;
    std::vector<Tensor> inputs(const Batch& batch, const std::vector<Tensor>& prepared,
                               const Draws& draws) override;
    Losses losses_of(const std::vector<Tensor>& inputs) override;
    void write_model(const std::string& folder, const std::function<Tensor(size_t)>& value) override;

private:
    const DiTPositions& positions_of(const Shape& latents);
    Tensor frozen_states(const Tensor& ids, const Tensor& mask) const;
    Tensor kept_states(const Batch& batch, const Tensor& ids, const Tensor& mask);

    DiT& dit_;
    Gemma2& text_;
    const Tokenizer& tokenizer_;
    Latents latents_;
    FlowOptions options_;
    bool train_text_;
    int64_t most_tokens_;
    LoraAdapter* lora_;
    TensorCache* cache_;
    std::map<std::string, DiTPositions> positions_;  // by the shape of the latents
    Rope text_positions_;                            // of a text encoder that is trained
};

}  // namespace sana
