#include "apps/bench_models.h"

#include <algorithm>

#include "core/graph_cache.h"
#include "core/random.h"

namespace sana::apps {

Size size_of_video(const ModelBench& bench, const Preset& preset) {
    bool hd = preset.dit.sample_size == 22;
    return {bench.width > 0 ? bench.width
            : hd            ? 1280
                            : 832,
            bench.height > 0 ? bench.height
            : hd             ? 704
                             : 480};
}

namespace {

constexpr int64_t kTextLength = 300;  // positions that the transformer sees

// f on the inputs, as a recording where that is asked for.
std::function<void()> recorded(const ModelBench& bench, const std::vector<Tensor>& inputs,
                               const GraphCache::Function& f) {
    if (!bench.graph) return [=] { f(inputs); };
    auto graphs = std::make_shared<GraphCache>(bench.device, [](const std::string& text) { fail(text); });
    return [=] { graphs->run("benchmark", inputs, f); };
}

}  // namespace

Preset preset_of(const ModelBench& bench) {
    Preset preset = find_preset(bench.preset);
    if (bench.layers > 0) {
        preset.dit.layers = bench.layers;
        preset.text.layers = bench.layers;
        preset.text.sliding.resize(static_cast<size_t>(bench.layers));
    }
    return preset;
}

Shape latents_of(const ModelBench& bench, const Preset& preset, int64_t batch) {
    VaeShape vae = shape_of(preset.vae);
    Size size = size_of_video(bench, preset);
    SizeRules rules;
    rules.multiple = vae.spatial_factor * std::max(preset.dit.patch[1], preset.dit.patch[2]);
    rules.temporal = vae.temporal_factor;
    check_size(rules, size);
    int64_t frames = valid_frames(rules, bench.frames);
    return {batch, (frames - 1) / vae.temporal_factor + 1, size.height / vae.spatial_factor,
            size.width / vae.spatial_factor, vae.latent_channels};
}

std::string video_text(const ModelBench& bench, const Preset& preset) {
    Size size = size_of_video(bench, preset);
    return join(bench.frames, " frames of ", size.width, " x ", size.height);
}

Subject dit_subject(const ModelBench& bench) {
    Preset preset = preset_of(bench);
    int64_t branches = bench.batch % 2 == 0 ? 2 : 1, clips = bench.batch / branches;
    Shape shape = latents_of(bench, preset, clips);
    auto dit = std::make_shared<DiT>(preset.dit);
    draw(parameters(*dit), 1, bench.dtype, bench.device);
    if (bench.fp8) {
        for (const NamedParameter& p : parameters(*dit)) quantise(p, dit_fp8_rule());
    }
    release_cached(bench.device);  // what drawing in fp32 has left
    auto text = std::make_shared<TextContext>(dit->prepare_text(
        randn_philox({bench.batch, kTextLength, preset.dit.caption_channels}, 2, 0, bench.device), {}));
    text->positions = dit->positions(shape);
    Tensor latents = randn_philox(shape, 3, 0, bench.device),
           times = full({clips}, 500, DType::F32, bench.device);
    Subject subject{"dit",
                    join(bench.preset, ", ", preset.dit.layers, " layers, ", video_text(bench, preset),
                         branches == 2 ? ", guidance pairs" : "", ", batch ", bench.batch),
                    bench.fp8 ? DType::F8E4M3 : bench.dtype,
                    bench.device,
                    dit_work(preset.dit, shape, kTextLength, size_of(bench.dtype), branches),
                    {}};
    subject.run = recorded(bench, {latents, times},
                           [=](const std::vector<Tensor>& in) { return dit->forward(in[0], in[1], *text); });
    return subject;
}

Subject text_subject(const ModelBench& bench) {
    Preset preset = preset_of(bench);
    auto model = std::make_shared<Gemma2>(preset.text);
    draw(parameters(*model), 1, bench.dtype, bench.device);
    release_cached(bench.device);
    int64_t count = static_cast<int64_t>(bench.lengths.size()),
            longest = *std::max_element(bench.lengths.begin(), bench.lengths.end());
    auto ids_of = [&](int64_t length) {
        std::vector<int32_t> ids(static_cast<size_t>(longest), 0);
        for (int64_t i = 0; i < length; ++i)
            ids[static_cast<size_t>(i)] = static_cast<int32_t>((i * 7919 + 2) % preset.text.vocabulary);
        return ids;
    };
    std::string lengths;
    for (int64_t length : bench.lengths) lengths += join(lengths.empty() ? "" : " + ", length);
    Subject subject{"text",
                    join(bench.preset, ", ", preset.text.layers, " layers, ", lengths, " tokens",
                         bench.padded ? ", padded" : ""),
                    bench.dtype,
                    bench.device,
                    text_work(preset.text, bench.lengths),
                    {}};
    Gemma2Call call{.positions = model->positions(longest)};
    std::vector<int32_t> ids, mask;
    for (int64_t length : bench.lengths) {
        std::vector<int32_t> row = ids_of(length);
        ids.insert(ids.end(), row.begin(), bench.padded ? row.end() : row.begin() + length);
        for (int64_t i = 0; i < longest; ++i) mask.push_back(i < length);
    }
    Tensor id_tensor, mask_tensor;
    if (bench.padded) {
        id_tensor = from_vector(ids, {count, longest}).to(bench.device);
        mask_tensor = from_vector(mask, {count, longest}).to(bench.device);
    } else {
        id_tensor = from_vector(ids, {1, static_cast<int64_t>(ids.size())}).to(bench.device);
        call.lengths = bench.lengths;
    }
    subject.run = [=] { model->forward(id_tensor, mask_tensor, call); };
    return subject;
}

Subject vae_subject(const ModelBench& bench) {
    Preset preset = preset_of(bench);
    Shape shape = latents_of(bench, preset, 1);
    auto vae = std::make_shared<Vae>(preset.vae, VaeParts::decoder);
    draw(vae->parameters(), 1, bench.dtype, bench.device);
    release_cached(bench.device);
    Tensor latents = randn_philox(shape, 3, 0, bench.device).to(bench.dtype);
    Subject subject{"vae",
                    join(class_name(preset.vae), " decode, ", video_text(bench, preset)),
                    bench.dtype,
                    bench.device,
                    decode_work(preset.vae, shape),
                    {}};
    subject.run = [=] {
        VaeDecodeOptions options;
        options.sink = [](const Tensor&) {};
        vae->decode(latents, options);
    };
    return subject;
}

}  // namespace sana::apps
