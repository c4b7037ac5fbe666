#include "apps/bench_models.h"

#include <algorithm>

#include "core/random.h"

namespace sana::apps {

namespace {

constexpr int64_t kTextLength = 300;  // positions that the transformer sees

Size size_of_video(const ModelBench& bench, const Preset& preset) {
    bool hd = preset.dit.sample_size == 22;
    return {bench.width > 0 ? bench.width
            : hd            ? 1280
                            : 832,
            bench.height > 0 ? bench.height
            : hd             ? 704
                             : 480};
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
    Shape shape = latents_of(bench, preset, bench.batch);
    auto dit = std::make_shared<DiT>(preset.dit);
    draw(parameters(*dit), 1, bench.dtype, bench.device);
    release_cached(bench.device);  // what drawing in fp32 has left
    auto text = std::make_shared<TextContext>(dit->prepare_text(
        randn_philox({bench.batch, kTextLength, preset.dit.caption_channels}, 2, 0, bench.device), {}));
    text->positions = dit->positions(shape);
    Tensor latents = randn_philox(shape, 3, 0, bench.device),
           times = full({bench.batch}, 500, DType::F32, bench.device);
    Subject subject{"dit",
                    join(bench.preset, ", ", preset.dit.layers, " layers, ", video_text(bench, preset),
                         ", batch ", bench.batch),
                    bench.dtype,
                    bench.device,
                    dit_work(preset.dit, shape, kTextLength, size_of(bench.dtype)),
                    {}};
    subject.run = [=] { dit->forward(latents, times, *text); };
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
    if (bench.padded) {
        std::vector<int32_t> ids, mask;
        for (int64_t length : bench.lengths) {
            std::vector<int32_t> row = ids_of(length);
            ids.insert(ids.end(), row.begin(), row.end());
            for (int64_t i = 0; i < longest; ++i) mask.push_back(i < length);
        }
        Tensor id_tensor = from_vector(ids, {count, longest}).to(bench.device),
               mask_tensor = from_vector(mask, {count, longest}).to(bench.device);
        subject.run = [=] { model->forward(id_tensor, mask_tensor); };
        return subject;
    }
    std::vector<Tensor> texts;
    for (int64_t length : bench.lengths)
        texts.push_back(from_vector(ids_of(length), {longest})
                            .outer_slice(0, length)
                            .clone()
                            .reshape({1, length})
                            .to(bench.device));
    subject.run = [=] {
        for (const Tensor& ids : texts) model->forward(ids, {});
    };
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
