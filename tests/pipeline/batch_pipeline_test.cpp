// Clips made side by side are those that are made one by one.
#include "pipeline/batch_pipeline.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "../device.h"
#include "ops/layout.h"
#include "pipeline/presets.h"

using namespace sana;

TEST(BatchPipeline, MakesWhatSingleRunsMake) {
    ModelFolder model = random_model(find_preset("tiny"), 3);
    Placement placement{.device = test_device()};
    Request form;
    form.size = {64, 32};
    form.frames = 9;
    form.steps = 3;
    form.guidance = 4;
    Tensor picture = empty({32, 64, 3}, DType::U8);
    for (int64_t i = 0; i < picture.numel(); ++i)
        picture.data<uint8_t>()[i] = static_cast<uint8_t>(i * 5 / 7);
    for (bool with_picture : {false, true}) {
        SCOPED_TRACE(with_picture ? "image to video" : "text to video");
        std::vector<BatchItem> items = {
            {"a red circle", 1, {}}, {"two large blue squares that move", 2, {}}, {"x", 1, {}}};
        if (with_picture)
            for (BatchItem& item : items) item.image = picture;
        std::vector<Tensor> clips = BatchPipeline(model, placement).generate(form, items);
        ASSERT_EQ(clips.size(), items.size());
        EXPECT_NE(max_abs_difference(clips[0], clips[1]), 0);
        for (size_t i = 0; i < items.size(); ++i) {
            Request one = form;
            one.prompt = items[i].prompt;
            one.seed = items[i].seed;
            one.image = items[i].image;
            std::vector<Tensor> chunks;
            Hooks hooks;
            hooks.frames = [&](const Tensor& chunk) { chunks.push_back(chunk); };
            VideoPipeline(model, placement).generate(one, hooks);
            // fp32 sums in another order: at most the rounding to 8 bits differs.
            EXPECT_LE(max_abs_difference(clips[i].to(DType::F32), concat(chunks, 0).to(DType::F32)), 1) << i;
        }
    }
}

// With hardly any noise a model can only leave a clip as its autoencoder gives it; with more it goes its own way.
TEST(BatchPipeline, BeginsWithClipsUnderNoise) {
    ModelFolder model = random_model(find_preset("tiny"), 3);
    BatchPipeline pipeline(model, {.device = test_device()});
    Tensor clip = empty({9, 32, 64, 3}, DType::U8);
    for (int64_t i = 0; i < clip.numel(); ++i) clip.data<uint8_t>()[i] = static_cast<uint8_t>(i * 5 / 7);
    Request form;
    form.size = {64, 32};
    form.frames = 9;
    form.steps = 200;
    form.flow_shift = 1;
    form.guidance = 1;
    std::vector<BatchItem> items = {{"a red circle", 1, {}, clip}, {"x", 2, {}, clip}};
    auto difference = [&](double noise) {
        Tensor made = pipeline.generate(form, items, {}, noise)[1];
        return max_abs_difference(made.to(DType::F32), pipeline.reconstruct({clip})[0].to(DType::F32));
    };
    double little = difference(0.005), more = difference(0.05);
    // 5e-3 of noise of up to four deviations in latents of deviation 1 comes to 10 of 255 through this random decoder, and
    // ten times as much to several times that.
    EXPECT_LE(little, 12);
    EXPECT_GT(more, 2 * little);
    EXPECT_THROW(difference(0.001), InputError);
    items[0].clip = {};
    EXPECT_ANY_THROW(difference(0.005));
}

TEST(BatchPipeline, ReconstructsWhatItsAutoencoderGives) {
    ModelFolder model = random_model(find_preset("tiny"), 3);
    Placement placement{.device = test_device()};
    Tensor clip = empty({9, 32, 64, 3}, DType::U8);
    for (int64_t i = 0; i < clip.numel(); ++i) clip.data<uint8_t>()[i] = static_cast<uint8_t>(i * 5 / 7);
    Tensor other = full({5, 32, 64, 3}, 90, DType::U8);
    std::vector<Tensor> out = BatchPipeline(model, placement).reconstruct({clip, other});
    ASSERT_EQ(out.size(), 2u);
    EXPECT_EQ(out[1].shape(), other.shape());

    Vae vae = model.load_vae(VaeParts::both, placement.vae, placement.device);
    std::vector<Tensor> frames;
    for (int64_t t = 0; t < 9; ++t) frames.push_back(from_uint8(clip.select(t)));
    Tensor video = concat(frames, 1).to(placement.vae).to(placement.device);
    Tensor decoded = vae.decode(vae.encode(video).mean).to(kCpu).to(DType::F32);  // -1..1
    ASSERT_EQ(decoded.numel(), clip.numel());
    for (int64_t i = 0; i < clip.numel(); ++i) {
        double level = std::clamp((decoded.data<float>()[i] + 1) * 127.5, 0.0, 255.0);
        ASSERT_NEAR(out[0].data<uint8_t>()[i], level, 1.5) << i;  // rounding, also of the latents on the way
    }
}
