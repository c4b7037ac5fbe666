#include "pipeline/batch_pipeline.h"

#include "core/scope.h"
#include "ops/layout.h"
#include "ops/pointwise.h"
#include "sampling/denoise.h"

namespace sana {

namespace {

// Begins with the first step whose noise is no higher than level.
Sampler sampler_from(const Plan& plan, int64_t steps, double level) {
    Schedule schedule = make_schedule(plan.sampler, steps, plan.flow_shift);
    int64_t first = 0, count = static_cast<int64_t>(schedule.timesteps.size());
    while (level < 1 && first < count && schedule.sigmas[static_cast<size_t>(first)] > level) ++first;
    check_input(first < count, "no step of ", steps, " has a noise level of ", level,
                " or less; take more steps or a smaller flow shift");
    return {plan.sampler, steps, plan.flow_shift, first};
}

}  // namespace

BatchPipeline::BatchPipeline(const ModelFolder& model, const Placement& placement)
    : model_(model),
      placement_(placement),
      single_(model, placement),
      tokenizer_(model.load_tokenizer()),
      text_(model.load_text_encoder(placement.text, placement.device)),
      dit_(model.load_transformer(placement.transformer, placement.device, placement.fp8)),
      vae_(model.load_vae(VaeParts::both, placement.vae, placement.device)) {}

// With guidance the negative prompt of every item first: [2B,L,C].
TextFeatures BatchPipeline::encode_texts(const Request& form, const std::vector<BatchItem>& items) const {
    std::vector<PromptTokens> texts;
    if (form.guidance > 1) {
        PromptTokens negative =
            tokenize_prompt(tokenizer_, "", clean_prompt(form.negative_prompt, form.keep_case));
        texts.assign(items.size(), negative);
    }
    for (const BatchItem& item : items)
        texts.push_back(
            tokenize_prompt(tokenizer_, model_.prompt_template.instruction,
                            clean_prompt(item.prompt, form.keep_case) + motion_suffix(form.motion_score)));
    return text_features(text_, texts, form.soft_cap);
}

// [B,1,h,w,Z]
Tensor BatchPipeline::picture_latents(const Request& form, const Plan& plan,
                                      const std::vector<BatchItem>& items) const {
    std::vector<Tensor> all;
    for (const BatchItem& item : items) {
        check(item.image.defined(), "an item without a picture among items with one");
        Tensor picture = from_uint8(fit_image(item.image, plan.size, form.fit));
        Tensor mean = vae_.encode(picture.to(placement_.vae).to(placement_.device)).mean;
        all.push_back(vae_.normalise(mean.to(DType::F32)));
    }
    return concat(all, 0);
}

std::vector<Tensor> BatchPipeline::generate(const Request& form, const std::vector<BatchItem>& items,
                                            const std::function<bool()>& cancelled, double level) {
    check(!items.empty(), "a batch of no items");
    Device device = placement_.device;
    int64_t count = static_cast<int64_t>(items.size());
    std::vector<Tensor> noise;
    Plan plan;
    for (const BatchItem& item : items) {
        Request r = form;
        r.prompt = item.prompt;
        r.seed = item.seed;
        r.image = item.image;
        plan = single_.plan(r);
        noise.push_back(single_.noise(r, plan));
    }
    Sampler sampler = sampler_from(plan, form.steps, level);
    Tensor latents = concat(noise, 0).to(device);
    if (level < 1) {
        std::vector<Tensor> clean;
        for (const BatchItem& item : items) clean.push_back(encode(item.clip));
        double sigma = sampler.schedule().sigmas[static_cast<size_t>(sampler.position())];
        latents = combine({{1 - sigma, concat(clean, 0)}, {sigma, latents}});
    }
    int64_t frames = latents.dim(1), keep = items[0].image.defined() ? 1 : 0;
    if (keep > 0) latents = concat({picture_latents(form, plan, items), slice(latents, 1, 1, frames - 1)}, 1);

    bool guided = form.guidance > 1;
    TextFeatures text = encode_texts(form, items);
    TextContext context = dit_.prepare_text(text.states.to(device), text.mask.to(device));
    context.positions = dit_.positions(latents.shape());
    auto velocity = [&](const Tensor& x, double t) {
        // With pictures one timestep a latent frame: 0 for the picture.
        Tensor times = full(keep > 0 ? Shape{count, frames} : Shape{count}, t, DType::F32);
        for (int64_t b = 0; keep > 0 && b < count; ++b) times.data<float>()[b * frames] = 0;
        Tensor v = dit_.forward(x, times.to(device), context).to(DType::F32);
        return guided ? guide(v.outer_slice(0, count), v.outer_slice(count, count), form.guidance) : v;
    };
    latents = denoise(latents, sampler, keep, velocity, {.on_step = {}, .cancelled = cancelled});

    std::vector<Tensor> out;
    for (int64_t i = 0; i < count; ++i) out.push_back(decode(latents.outer_slice(i, 1), plan.output));
    return out;
}

Tensor BatchPipeline::decode(const Tensor& latents, const Size& output) const {
    std::vector<Tensor> chunks;
    decode_frames(vae_, latents, output, {}, [&](const Tensor& chunk) { chunks.push_back(to_uint8(chunk)); });
    return concat(chunks, 0);
}

Tensor BatchPipeline::encode(const Tensor& clip) const {
    check(clip.defined(), "an item without a clip to begin with");
    std::vector<Tensor> frames;
    for (int64_t t = 0; t < clip.dim(0); ++t) frames.push_back(from_uint8(clip.select(t)));
    Tensor video = concat(frames, 1).to(placement_.vae).to(placement_.device);
    return vae_.normalise(vae_.encode(video).mean.to(DType::F32));
}

std::vector<Tensor> BatchPipeline::reconstruct(const std::vector<Tensor>& clips) const {
    std::vector<Tensor> out;
    for (const Tensor& clip : clips) {
        out.push_back(decode(encode(clip), {.width = clip.dim(2), .height = clip.dim(1)}));
    }
    return out;
}

}  // namespace sana
