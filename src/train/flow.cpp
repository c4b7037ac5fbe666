#include "train/flow.h"

#include <algorithm>
#include <cmath>

#include "core/hash.h"
#include "core/scope.h"
#include "io/safetensors.h"
#include "io/text_file.h"
#include "ops/loss.h"
#include "ops/pointwise.h"
#include "ops/tape.h"
#include "text/prompt.h"

namespace sana {

namespace {

// Purposes of Draws.
enum : uint64_t { kTimes = 1, kNoise = 2, kDrop = 3, kGiven = 4 };

constexpr int64_t kShard = int64_t{16} << 20;

}  // namespace

double flow_sigma(int64_t t, double shift) {
    double s = static_cast<double>(t) / 1000;
    return shift * s / (1 + (shift - 1) * s);
}

std::vector<bool> dropped_captions(const FlowOptions& o, const Draws& draws, int64_t batch) {
    std::vector<bool> out;
    for (double u : draws.uniform(static_cast<size_t>(batch), kDrop)) out.push_back(u < o.drop_caption);
    return out;
}

FlowBatch draw_flow(const FlowOptions& o, const Draws& draws, int64_t batch, int64_t frames,
                    int64_t elements) {
    FlowBatch out;
    Tensor normal = draws.normal({batch}, kTimes);
    std::vector<double> given = draws.uniform(static_cast<size_t>(batch), kGiven);
    std::vector<float> times, weights;
    bool any = false;
    for (int64_t b = 0; b < batch; ++b) {
        double n = normal.data<float>()[b], u = 1 / (1 + std::exp(-(o.mean + o.deviation * n)));
        int64_t t = std::min<int64_t>(999, static_cast<int64_t>(1000 * u));
        double sigma = flow_sigma(t, o.shift);
        bool first_given = frames > 1 && given[static_cast<size_t>(b)] < o.image_to_video;
        any = any || first_given;
        int64_t counted = frames - (first_given ? 1 : 0);
        for (int64_t f = 0; f < frames; ++f) {
            bool clean = first_given && f == 0;
            out.sigma.push_back(clean ? 0 : sigma);
            times.push_back(clean ? 0.0f : static_cast<float>(std::floor(1000 * sigma)));
            weights.push_back(
                clean ? 0.0f : static_cast<float>(1.0 / static_cast<double>(batch * counted * elements)));
        }
    }
    out.times = from_vector(times, {batch, frames});
    if (!any) out.times = out.times.reshape({batch, frames}).cols_slice(0, 1).contiguous().reshape({batch});
    out.weight = from_vector(weights, {batch * frames});
    return out;
}

Captions tokenize_captions(const Tokenizer& tokenizer, const std::vector<std::string>& captions,
                           int64_t most) {
    std::vector<std::vector<int32_t>> ids;
    for (const std::string& caption : captions) {
        ids.push_back(tokenize_prompt(tokenizer, "", clean_prompt(caption, false), most).ids);
    }
    int64_t batch = static_cast<int64_t>(captions.size()), length = most;
    Captions out{zeros({batch, length}, DType::I32), zeros({batch, length}, DType::I32)};
    for (int64_t b = 0; b < batch; ++b) {
        const auto& row = ids[static_cast<size_t>(b)];
        for (size_t i = 0; i < row.size(); ++i) {
            out.ids.data<int32_t>()[b * length + static_cast<int64_t>(i)] = row[i];
            out.mask.data<int32_t>()[b * length + static_cast<int64_t>(i)] = 1;
        }
    }
    return out;
}

FlowObjective::FlowObjective(DiT& dit, Gemma2& text, const Tokenizer& tokenizer, Latents latents,
                             const FlowOptions& options, bool train_text, int64_t most_tokens,
                             LoraAdapter* lora, TensorCache* cache)
    : dit_(dit),
      text_(text),
      tokenizer_(tokenizer),
      latents_(std::move(latents)),
      options_(options),
      train_text_(train_text),
      most_tokens_(most_tokens),
      lora_(lora),
      cache_(cache) {
    check(cache == nullptr || !train_text, "states of a text encoder that is trained cannot be kept");
}

std::vector<NamedParameter> FlowObjective::parameters() {
    if (lora_ != nullptr) return lora_->parameters();
    std::vector<NamedParameter> out = sana::parameters(dit_);
    for (NamedParameter& p : out) p.name = "transformer." + p.name;
    if (train_text_) {
        for (NamedParameter& p : sana::parameters(text_))
            out.push_back({"text_encoder." + p.name, p.parameter});
    }
    return out;
}

const DiTPositions& FlowObjective::positions_of(const Shape& latents) {
    auto [it, fresh] = positions_.try_emplace(join(latents));
    if (fresh) it->second = dit_.positions(latents);
    return it->second;
}

Tensor FlowObjective::frozen_states(const Tensor& ids, const Tensor& mask) const {
    NoTape frozen;
    return text_.forward(ids, mask);
}

// [B,L,C], zero behind each text's end.
Tensor FlowObjective::kept_states(const Batch& batch, const Tensor& ids, const Tensor& mask) {
    NoTape frozen;
    int64_t samples = ids.dim(0), length = ids.dim(1);
    Tensor all = zeros({samples, length, text_.config().hidden}, text_.dtype());
    for (int64_t b = 0; b < samples; ++b) {
        const int32_t* counted = mask.data<int32_t>() + b * length;
        int64_t count = std::count(counted, counted + length, 1);
        Tensor own = ids.outer_slice(b, 1).reshape({length}).outer_slice(0, count);
        std::string key =
            "text states of tokens " + sha256_hex({reinterpret_cast<const char*>(own.data<int32_t>()),
                                                   static_cast<size_t>(own.bytes())});
        std::optional<TensorMap> kept = cache_->find(key);
        if (!kept) {
            Gemma2Call call{.lengths = {count}};
            Tensor on_device = own.reshape({1, count}).to(text_.device());
            kept = TensorMap{{"states", text_.forward(on_device, {}, call).to(kCpu)}};
            if (batch.samples[static_cast<size_t>(b)].lasting) cache_->keep(key, *kept);
        }
        const Tensor& states = kept->at("states");
        Tensor place = all.outer_slice(b, 1).reshape({length, all.dim(2)}).outer_slice(0, count);
        copy(states.reshape(place.shape()), place);
    }
    return all.to(text_.device());
}

std::vector<Tensor> FlowObjective::prepare(const Batch& batch, const Draws& draws) {
    std::vector<bool> dropped = dropped_captions(options_, draws, static_cast<int64_t>(batch.samples.size()));
    std::vector<std::string> captions;
    for (size_t b = 0; b < batch.samples.size(); ++b)
        captions.push_back(dropped[b] ? std::string() : batch.samples[b].caption);
    Captions text = tokenize_captions(tokenizer_, captions, most_tokens_);
    return {text.ids, text.mask};
}

std::vector<Tensor> FlowObjective::inputs(const Batch& batch, const std::vector<Tensor>& prepared,
                                          const Draws& draws) {
    Tensor clean = latents_(batch, draws);
    int64_t samples = clean.dim(0), frames = clean.dim(1), patch = dit_.config().patch[0];
    check(patch == 1, "training needs a transformer whose patches are one latent frame long");
    int64_t positions = clean.dim(2) * clean.dim(3), channels = clean.dim(4);
    FlowBatch flow = draw_flow(options_, draws, samples, frames, positions * channels);
    Tensor sigma = empty({samples, frames, channels}, DType::F32);
    for (int64_t i = 0; i < sigma.numel(); ++i)
        sigma.data<float>()[i] = static_cast<float>(flow.sigma[static_cast<size_t>(i / channels)]);
    Device device = clean.device();
    // Made here, as the host's tables cannot be copied while the loss is recorded.
    positions_of(clean.shape());
    if (train_text_ && !text_positions_.cos.defined()) text_positions_ = text_.positions(most_tokens_);
    Tensor ids = prepared[0].to(device), mask = prepared[1].to(device);
    return {clean,
            draws.normal(clean.shape(), kNoise, device),
            sigma.to(device),
            flow.times.to(device),
            flow.weight.to(device),
            mask,
            train_text_         ? ids
            : cache_ != nullptr ? kept_states(batch, prepared[0], prepared[1])
                                : frozen_states(ids, mask)};
}

Losses FlowObjective::losses_of(const std::vector<Tensor>& inputs) {
    const Tensor &clean = inputs[0], &noise = inputs[1], &sigma = inputs[2], &times = inputs[3],
                 &weight = inputs[4], &mask = inputs[5], &text = inputs[6];
    // x_t = (1 - sigma) x0 + sigma eps and eps - x0, in fp32; sigma a frame.
    Shape rows{clean.dim(0), clean.dim(1) * clean.dim(2) * clean.dim(3), clean.dim(4)};
    Tensor target = combine({{1, noise}, {-1, clean}});
    Tensor moved = group_scale(target.reshape(rows), sigma).reshape(clean.shape());
    Tensor noisy = add(clean, moved).to(dit_.dtype()),
           states = train_text_ ? text_.forward(text, mask, {.positions = text_positions_}) : text;
    if (lora_ != nullptr) lora_->apply();
    check(states.dtype() == dit_.dtype(), "text states ", states, " for a transformer of ", dit_.dtype());
    TextContext context = dit_.prepare_text(states, mask);
    context.positions = positions_of(clean.shape());
    Tensor velocity = dit_.forward(noisy, times, context, {}, nullptr);
    return {difference_loss(velocity, target, LossKind::squared, weight), {}};
}

void FlowObjective::write_model(const std::string& folder, const std::function<Tensor(size_t)>& value) {
    if (lora_ != nullptr) return lora_->write(folder, dit_diffusers_names(dit_.config()), value);
    std::vector<NamedParameter> list = parameters();
    std::vector<Tensor> kept;
    for (size_t i = 0; i < list.size(); ++i) {
        kept.push_back(list[i].parameter->value);
        list[i].parameter->value = value(i).to(DType::BF16);
    }
    make_folders(folder + "/transformer");
    write_sharded(folder + "/transformer", "diffusion_pytorch_model",
                  save(sana::parameters(dit_), dit_diffusers_names(dit_.config())), kShard);
    write_text_file(folder + "/transformer/config.json", dit_.config().to_json());
    if (train_text_) {
        make_folders(folder + "/text_encoder");
        write_sharded(folder + "/text_encoder", "model", save(sana::parameters(text_), gemma2_names({})),
                      kShard);
        write_text_file(folder + "/text_encoder/config.json", text_.config().to_json());
    }
    for (size_t i = 0; i < list.size(); ++i) list[i].parameter->value = kept[i];
}

}  // namespace sana
