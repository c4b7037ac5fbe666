#include "pipeline/video_pipeline.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <future>

#include "core/graph_cache.h"
#include "core/random.h"
#include "core/scope.h"
#include "ops/layout.h"
#include "ops/pointwise.h"
#include "pipeline/block_stream.h"
#include "pipeline/work.h"
#include "sampling/denoise.h"
#include "sampling/step_cache.h"

namespace sana {

namespace {

void note(const Hooks& hooks, const std::string& text) {
    if (hooks.note) hooks.note(text);
}

}  // namespace

std::string_view name_of(Phase phase) {
    switch (phase) {
        case Phase::load: return "load";
        case Phase::text: return "text";
        case Phase::image: return "image";
        case Phase::denoise: return "denoise";
        case Phase::decode: return "decode";
    }
    return "";
}

VideoPipeline::VideoPipeline(const ModelFolder& model, const Placement& placement)
    : model_(model), placement_(placement) {}

void VideoPipeline::report(const Hooks& hooks, Phase phase, int64_t done, int64_t total) const {
    if (hooks.cancelled && hooks.cancelled()) throw Cancelled(join("cancelled during ", name_of(phase)));
    if (!hooks.progress) return;
    synchronise(placement_.device);  // what is reported as done is done: the hook reads the clock
    hooks.progress({phase, done, total});
}

namespace {

// Texts far beyond what the model reads (300 tokens) are taken for a mistake: a file pasted in place of a prompt.
constexpr size_t kMostPromptBytes = 20000;

void check_prompts(const Request& r) {
    check_input(!clean_prompt(r.prompt, r.keep_case).empty(),
                "the prompt is empty; say what the video shows with --prompt");
    auto check_length = [](const char* name, const std::string& text) {
        check_input(text.size() <= kMostPromptBytes, "the ", name, " has ", text.size(),
                    " characters; at most ", kMostPromptBytes,
                    " are taken, of which the model reads the first 300 tokens");
    };
    check_length("prompt", r.prompt);
    check_length("negative prompt", r.negative_prompt);
}

}  // namespace

Plan VideoPipeline::plan(const Request& r, const Hooks& hooks) const {
    const SizeRules& rules = model_.size_rules;
    Plan plan;
    check_prompts(r);
    check_input(r.size.width >= 1 && r.size.height >= 1 && r.size.width <= 16384 && r.size.height <= 16384,
                "size ", r.size.width, " x ", r.size.height, " is out of range; 1 .. 16384 a side");
    plan.output = plan.size = r.size;
    bool fits = r.size.width % rules.multiple == 0 && r.size.height % rules.multiple == 0;
    const std::vector<Bin>* bins = resolution_bins(model_.dit.sample_size);
    check_input(r.binning != Binning::on || bins != nullptr,
                "this model has no resolution bins (its sample_size is ", model_.dit.sample_size,
                "); use --bins off and sides that are multiples of ", rules.multiple);
    if (r.binning == Binning::on || (r.binning == Binning::automatic && !fits && bins != nullptr)) {
        plan.size = nearest_bin(*bins, r.size);
        if (!(plan.size == r.size)) {
            note(hooks, join(r.size.width, " x ", r.size.height, " is made at ", plan.size.width, " x ",
                             plan.size.height, " (the nearest bin of this model) and scaled back"));
        }
    }
    check_size(rules, plan.size);
    check_input(r.frames >= 1 && r.frames <= rules.most_frames, "frames is ", r.frames,
                "; this model makes 1 .. ", rules.most_frames);
    plan.frames = valid_frames(rules, r.frames);
    if (plan.frames != r.frames) {
        note(hooks, join(r.frames, " frames become ", plan.frames, ": the autoencoder makes 1 + ",
                         rules.temporal, "k frames"));
    }
    check_input(r.guidance >= 0 && r.guidance <= 100, "guidance is ", r.guidance, "; 0 .. 100");
    check_input(!r.image.defined() || plan.frames > 1,
                "image to video needs more than one frame: the first is the picture itself");
    VaeShape vae = shape_of(model_.vae);
    plan.latents = {1, (plan.frames - 1) / vae.temporal_factor + 1, plan.size.height / vae.spatial_factor,
                    plan.size.width / vae.spatial_factor, vae.latent_channels};
    plan.sampler = r.sampler.value_or(model_.sampler);
    plan.flow_shift = r.flow_shift.value_or(model_.flow_shift);
    make_schedule(plan.sampler, r.steps, plan.flow_shift);  // checks steps and shift
    return plan;
}

const MemoryPlan& VideoPipeline::fit(const Request& r, const Plan& p, const Hooks& hooks) {
    memory_ = plan_memory(
        {model_.dit, model_.text, model_.vae, placement_, p.latents, r.guidance > 1, r.image.defined()},
        placement_.budget);
    bool cut =
        std::any_of(memory_.phases.begin(), memory_.phases.end(), [](auto& m) { return !m.how.empty(); });
    if (cut || placement_.explain_plan) note(hooks, to_text(memory_));
    if (placement_.device != kCpu)
        set_capacity(placement_.device, placement_.budget > 0 ? placement_.budget : INT64_MAX);
    return memory_;
}

TextFeatures text_features(const Gemma2& encoder, const std::vector<PromptTokens>& texts, bool soft_cap) {
    DType dtype = encoder.dtype();
    Device device = encoder.device();
    int64_t batch = static_cast<int64_t>(texts.size()), length = texts[0].max_length,
            width = encoder.config().hidden;
    // Padding stands on the right of a causal model: the real tokens alone give the same states.
    std::vector<int32_t> ids;
    Gemma2Call call{.soft_cap = soft_cap};
    for (const PromptTokens& tokens : texts) {
        ids.insert(ids.end(), tokens.ids.begin(), tokens.ids.end());
        call.lengths.push_back(static_cast<int64_t>(tokens.ids.size()));
    }
    Tensor all = from_vector(ids, {1, static_cast<int64_t>(ids.size())}).to(device),
           states = encoder.forward(all, {}, call).to(kCpu);
    TextFeatures out{zeros({batch, length, width}, dtype), zeros({batch, length}, DType::I32)};
    size_t row = static_cast<size_t>(width * size_of(dtype));
    int64_t first = 0;
    for (int64_t b = 0; b < batch; ++b) {
        const PromptTokens& tokens = texts[static_cast<size_t>(b)];
        for (int64_t i = 0; i < length; ++i) {
            if (!tokens.kept(i)) continue;
            std::memcpy(
                static_cast<std::byte*>(out.states.raw()) + static_cast<size_t>(b * length + i) * row,
                static_cast<std::byte*>(states.raw()) + static_cast<size_t>(first + tokens.position(i)) * row,
                row);
            out.mask.data<int32_t>()[b * length + i] = 1;
        }
        first += static_cast<int64_t>(tokens.ids.size());
    }
    return out;
}

TextFeatures VideoPipeline::encode_text(const Request& r, const Hooks& hooks) {
    Scope scope("text");
    std::string prompt = clean_prompt(r.prompt, r.keep_case) + motion_suffix(r.motion_score);
    // A tokenizer of a quarter of a million pieces takes as long to read as the encoder's weights to come.
    std::future<Tokenizer> reading = std::async(std::launch::async, [&] { return model_.load_tokenizer(); });
    report(hooks, Phase::load, 0, 1);
    Device device = memory_.text_on_host ? kCpu : placement_.device;
    Gemma2 encoder = model_.load_text_encoder(placement_.text, device);
    report(hooks, Phase::text, 0, 2);
    Tokenizer tokenizer = reading.get();
    check_input(tokenizer.size() <= model_.text.vocabulary, "the tokenizer has ", tokenizer.size(),
                " tokens, the text encoder ", model_.text.vocabulary, "; they do not belong together");
    std::vector<PromptTokens> texts;
    if (r.guidance > 1)
        texts.push_back(tokenize_prompt(tokenizer, "", clean_prompt(r.negative_prompt, r.keep_case)));
    texts.push_back(tokenize_prompt(tokenizer, model_.prompt_template.instruction, prompt));
    if (texts.back().cut > 0) {
        note(hooks, join("the prompt is too long: its last ", texts.back().cut, " tokens are not seen",
                         r.motion_score > 0 ? " (the motion score among them)" : ""));
    }
    if (texts.size() == 2 && texts[0].cut > 0)
        note(hooks, join("the negative prompt is too long: its last ", texts[0].cut, " tokens are not seen"));
    report(hooks, Phase::text, 1, 2);
    TextFeatures out = text_features(encoder, texts, r.soft_cap);
    report(hooks, Phase::text, 2, 2);
    return out;
}

Tensor VideoPipeline::noise(const Request& r, const Plan& plan) const {
    // Drawn in the reference's order [B,Z,t,h,w], so that the same seed gives the same clip.
    const Shape& s = plan.latents;
    Shape first{s[0], s[4], s[1], s[2], s[3]};
    return channels_last(r.rng == Rng::torch ? randn_torch(first, r.seed) : randn_philox(first, r.seed));
}

Tensor VideoPipeline::encode_image(const Tensor& image, const Hooks& hooks) {
    Scope scope("image");
    report(hooks, Phase::image, 0, 1);
    Vae vae = model_.load_vae(VaeParts::encoder, placement_.vae, placement_.device);
    Tensor mean = vae.encode(image.to(placement_.vae).to(placement_.device)).mean;
    Tensor latent = vae.normalise(mean.to(DType::F32)).to(kCpu);
    report(hooks, Phase::image, 1, 1);
    return latent;
}

Tensor VideoPipeline::denoise(const Request& r, const Plan& plan, Tensor latents, const Tensor& image_latent,
                              const TextFeatures& text, const Hooks& hooks) {
    bool guided = r.guidance > 1;
    int64_t keep = image_latent.defined() ? 1 : 0, frames = latents.dim(1);
    check(text.states.dim(0) == (guided ? 2 : 1), "text states of ", text.states.dim(0), " prompts");
    if (keep > 0) latents = concat({image_latent, slice(latents, 1, 1, frames - 1)}, 1);
    report(hooks, Phase::load, 0, 1);
    Device device = placement_.device;
    bool streamed = memory_.resident_blocks >= 0;
    DiT dit = model_.load_transformer(placement_.transformer, streamed ? kCpu : device, placement_.fp8);
    dit.execution.samples = memory_.samples;
    dit.execution.wide_frames = memory_.wide_frames;
    std::optional<BlockStream> blocks;
    if (streamed) {
        std::vector<std::vector<NamedParameter>> lists;
        for (DiTBlock& block : dit.blocks) lists.push_back(parameters(block));
        blocks.emplace(std::move(lists), static_cast<size_t>(memory_.resident_blocks), device);
        for (NamedParameter& p : parameters(dit)) {
            if (!p.name.starts_with("blocks.")) move(*p.parameter, device);
        }
        dit.execution.before_block = [&](size_t i) { blocks->enter(i); };
        release_cached(kCpu);
    }
    TextContext context = dit.prepare_text(text.states.to(device), text.mask.to(device));
    context.positions = dit.positions(latents.shape());
    report(hooks, Phase::denoise, 0, r.steps);

    auto step = [&](const std::vector<Tensor>& inputs) {
        const Tensor &x = inputs[0], &times = inputs[1];
        Tensor v = dit.forward(x, times, context).to(DType::F32);
        return guided ? guide(v.outer_slice(0, 1), v.outer_slice(1, 1), r.guidance) : v;
    };
    // A step of less work than this takes less time than its launches.
    constexpr double kRecordedFlop = 1e12;
    Work work = dit_work(model_.dit, latents.shape(), text.states.dim(1), size_of(placement_.transformer),
                         guided ? 2 : 1);
    bool recorded = !streamed && work.flop < kRecordedFlop;
    GraphCache graphs(device, hooks.note);
    auto velocity = [&](const Tensor& x, double t) {
        // With an image one timestep a latent frame: 0 for the picture.
        Tensor times = full(keep > 0 ? Shape{1, frames} : Shape{1}, t, DType::F32);
        if (keep > 0) times.data<float>()[0] = 0;
        std::vector<Tensor> inputs = {x, times.to(device)};
        return recorded ? graphs.run("a step", inputs, step) : step(inputs);
    };
    DenoiseHooks steps;
    steps.cancelled = hooks.cancelled;
    steps.on_step = [&](int64_t k, int64_t n, const Tensor&, const Tensor& clean) {
        if (hooks.progress) {
            synchronise(device);
            hooks.progress({Phase::denoise, k, n});
        }
        if (hooks.preview && k < n) hooks.preview(k, clean.to(kCpu));
    };
    Sampler sampler(plan.sampler, r.steps, plan.flow_shift);
    if (r.step_cache == 0) return sana::denoise(latents.to(device), sampler, keep, velocity, steps).to(kCpu);
    StepCache cache(r.step_cache, r.steps);
    auto cached = [&](const Tensor& x, double t) { return cache.velocity(x, t, velocity); };
    Tensor out = sana::denoise(latents.to(device), sampler, keep, cached, steps).to(kCpu);
    note(hooks, join("step cache: ", cache.skipped(), " of ", r.steps, " steps were not computed"));
    return out;
}

void decode_frames(const Vae& vae, const Tensor& latents, Size output, VaeDecodeOptions options,
                   const std::function<void(const Tensor&)>& frames) {
    options.sink = [&](const Tensor& chunk) {
        // [1,T,H,W,3] in -1..1 -> 0..1
        Tensor x = chunk.select(0).to(DType::F32);
        bool resized = x.dim(1) != output.height || x.dim(2) != output.width;
        if (resized) x = resize_and_crop(x.to(kCpu), output);
        Tensor half = full({3}, 0.5, DType::F32, x.device());
        frames(clamp(affine(x, half, half), 0, 1).to(kCpu));
    };
    vae.decode(vae.denormalise(latents).to(vae.dtype()), options);
}

void VideoPipeline::decode(const Tensor& latents, Size output, VaeTiling tiling, const Hooks& hooks,
                           const std::function<void(const Tensor&)>& floats) {
    Scope scope("decode");
    // Frames at full resolution are the largest blocks of a run: keeping freed ones for reuse would double the peak, and
    // asking the system anew costs little beside the convolutions. Other devices keep theirs: asking costs more there, and
    // their cache gives way when memory runs out.
    struct SmallCache {
        SmallCache() { set_cache_limit(kCpu, int64_t{512} << 20); }
        ~SmallCache() { set_cache_limit(kCpu, INT64_MAX); }
    } small_cache;
    report(hooks, Phase::load, 0, 1);
    Vae vae = model_.load_vae(VaeParts::decoder, placement_.vae, placement_.device);
    vae.set_tiling(tiling);
    report(hooks, Phase::decode, 0, latents.dim(1));
    VaeDecodeOptions options;
    options.progress = [&](int64_t done, int64_t total) { report(hooks, Phase::decode, done, total); };
    decode_frames(vae, latents.to(placement_.device), output, options, [&](const Tensor& frames) {
        if (floats) floats(frames);
        if (hooks.frames) hooks.frames(to_uint8(frames));
    });
}

void VideoPipeline::generate(const Request& r, const Hooks& hooks) {
    Plan p = plan(r, hooks);
    fit(r, p, hooks);
    TextFeatures text = encode_text(r, hooks);
    make_room(placement_.device);
    Tensor image_latent;
    if (r.image.defined()) {
        image_latent = encode_image(from_uint8(fit_image(r.image, p.size, r.fit)), hooks);
        make_room(placement_.device);
    }
    Tensor latents = denoise(r, p, noise(r, p), image_latent, text, hooks);
    if (hooks.latents) hooks.latents(latents);
    make_room(placement_.device);
    decode(latents, p.output, r.tiling, hooks);
}

Tensor to_uint8(const Tensor& frames) {
    Tensor out = empty(frames.shape(), DType::U8);
    const float* in = frames.data<float>();
    uint8_t* bytes = out.data<uint8_t>();
    int64_t n = frames.numel();
#pragma omp parallel for
    for (int64_t i = 0; i < n; ++i) bytes[i] = static_cast<uint8_t>(std::nearbyint(in[i] * 255.0f));
    return out;
}

Tensor from_uint8(const Tensor& image) {
    Tensor out = empty({1, 1, image.dim(0), image.dim(1), 3}, DType::F32);
    for (int64_t i = 0; i < image.numel(); ++i) {
        out.data<float>()[i] = static_cast<float>(image.data<uint8_t>()[i]) / 255.0f * 2 - 1;
    }
    return out;
}

}  // namespace sana
