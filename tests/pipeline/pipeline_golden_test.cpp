// Whole model folders against the reference pipelines: text states, latents, frames. SANA_TOKENIZER names the folder of
// the vocabulary that belongs to them; without it the recorded text states are used.
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "../golden.h"
#include "ops/layout.h"
#include "ops/pointwise.h"
#include "pipeline/video_pipeline.h"

using namespace sana;
using namespace sana::test;

namespace {

constexpr double kLatents = 1e-4, kVideo = 1e-3;  // goldens.md: a whole pipeline, fp32

// An archive of one model folder, unpacked for this test.
std::string unpack(const std::string& archive) {
    namespace fs = std::filesystem;
    fs::path folder = fs::path(::testing::TempDir()) / ("sana_" + fs::path(archive).stem().string());
    fs::remove_all(folder);
    fs::create_directories(folder);
    std::string command = "tar -xzf '" + archive + "' -C '" + folder.string() + "'";
    EXPECT_EQ(std::system(command.c_str()), 0);
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
        if (entry.path().filename() == "model_index.json") return entry.path().parent_path().string();
    }
    ADD_FAILURE() << archive << " holds no model_index.json";
    return "";
}

struct Case {
    std::string folder;
    Golden golden;
    ModelFolder model;
    Request request;

    explicit Case(const std::string& path)
        : folder(path), golden(path + "/expected.safetensors"), model(paths(path)) {
        const auto& m = golden.file.metadata;
        request.prompt = m.at("prompt");
        request.negative_prompt = m.at("negative_prompt");
        request.size = {std::stoll(m.at("width")), std::stoll(m.at("height"))};
        request.frames = std::stoll(m.at("frames"));
        request.steps = std::stoll(m.at("steps"));
        request.guidance = std::stod(m.at("guidance"));
        request.binning = Binning::off;
        auto lines = nlohmann::json::parse(m.at("prompt_instruction")).get<std::vector<std::string>>();
        for (size_t i = 0; i < lines.size(); ++i)
            model.prompt_template.instruction += (i > 0 ? "\n" : "") + lines[i];
    }

    static ModelPaths paths(const std::string& folder) {
        const char* tokenizer = std::getenv("SANA_TOKENIZER");
        return {.folder = folder,
                .transformer = "",
                .tokenizer = tokenizer == nullptr ? "" : tokenizer,
                .prompt_template = "",
                .loras = ""};
    }

    // The recorded states: negative first with guidance, positive alone without.
    TextFeatures recorded(bool guided) const {
        std::vector<Tensor> states, masks;
        if (guided) {
            states.push_back(golden.at("text.negative_embeds"));
            masks.push_back(golden.at("text.negative_mask").to(DType::I32));
        }
        states.push_back(golden.at("text.prompt_embeds"));
        masks.push_back(golden.at("text.prompt_mask").to(DType::I32));
        return {concat(states, 0), concat(masks, 0)};
    }
};

// The project's own copies of the archives leave out the text encoder's weights, which mean something with the real
// vocabulary alone, and the image-to-video frames, whose latents are compared.
bool own_text(const Case& c) {
    return std::getenv("SANA_TOKENIZER") != nullptr &&
           std::filesystem::exists(c.folder + "/text_encoder/model.safetensors");
}

std::vector<Case> cases() {
    std::vector<Case> out;
    for (const std::string& archive : golden_files("pipeline_", ".tgz")) out.emplace_back(unpack(archive));
    return out;
}

// Frames of a decoded clip as the reference has them: [1,T,3,H,W] in 0..1.
Tensor decoded(VideoPipeline& pipeline, const Tensor& latents, Size size) {
    std::vector<Tensor> parts;
    pipeline.decode(latents, size, {}, {}, [&](const Tensor& frames) { parts.push_back(frames); });
    Tensor video = concat(parts, 0);
    return permute(video, {0, 3, 1, 2}).reshape({1, video.dim(0), 3, video.dim(1), video.dim(2)});
}

// Padding rows may hold anything: only rows under the mask are compared.
Tensor masked(const Tensor& states, const Tensor& mask) {
    Tensor out = states.to(DType::F32).clone();
    for (int64_t r = 0; r < out.rows(); ++r) {
        if (mask.data<int32_t>()[r] == 0) std::fill_n(out.data<float>() + r * out.cols(), out.cols(), 0.0f);
    }
    return out;
}

}  // namespace

TEST(PipelineGolden, TextStates) {
    for (Case& c : cases()) {
        SCOPED_TRACE(c.folder);
        if (!own_text(c))
            GTEST_SKIP() << "needs SANA_TOKENIZER, a folder with the real vocabulary, and SANA_GOLDENS, the "
                            "reference archives with the text encoder's weights";
        VideoPipeline pipeline(c.model, {.device = test_device()});
        TextFeatures text = pipeline.encode_text(c.request), expected = c.recorded(true);
        EXPECT_EQ(max_abs_difference(text.mask, expected.mask), 0.0);
        expect_close(text.states, masked(expected.states, expected.mask), 2e-5, "text states");
    }
}

TEST(PipelineGolden, TextToVideo) {
    for (Case& c : cases()) {
        SCOPED_TRACE(c.folder);
        VideoPipeline pipeline(c.model, {.device = test_device()});
        Plan plan = pipeline.plan(c.request);
        Tensor noise = channels_last(c.golden.at("t2v.in.latents"));
        ASSERT_EQ(plan.latents, noise.shape());
        TextFeatures text = own_text(c) ? pipeline.encode_text(c.request) : c.recorded(true);
        Tensor latents = pipeline.denoise(c.request, plan, noise, {}, text, {});
        expect_close(channels_first(latents), c.golden.at("t2v.out.latents"), kLatents, "t2v.out.latents");
        expect_close(decoded(pipeline, latents, plan.output), c.golden.at("t2v.out.video"), kVideo,
                     "t2v.out.video");
    }
}

// Guidance 1 and no instruction. The states of the bare prompt are not recorded, so this needs the vocabulary.
TEST(PipelineGolden, WithoutGuidance) {
    for (Case& c : cases()) {
        SCOPED_TRACE(c.folder);
        if (!own_text(c))
            GTEST_SKIP() << "needs SANA_TOKENIZER, a folder with the real vocabulary, and SANA_GOLDENS, the "
                            "reference archives with the text encoder's weights";
        c.model.prompt_template = {};
        c.request.guidance = 1;
        VideoPipeline pipeline(c.model, {.device = test_device()});
        Plan plan = pipeline.plan(c.request);
        Tensor latents = pipeline.denoise(c.request, plan, channels_last(c.golden.at("t2v.in.latents")), {},
                                          pipeline.encode_text(c.request), {});
        expect_close(channels_first(latents), c.golden.at("t2v_nocfg.out.latents"), kLatents,
                     "t2v_nocfg.out.latents");
    }
}

// The picture is recorded as floats in 0..1; the reference ran flow-Euler with shift 8.
TEST(PipelineGolden, ImageToVideo) {
    for (Case& c : cases()) {
        SCOPED_TRACE(c.folder);
        VideoPipeline pipeline(c.model, {.device = test_device()});
        c.request.sampler = SamplerKind::flow_euler;
        c.request.flow_shift = 8;
        Plan plan = pipeline.plan(c.request);
        Tensor image = permute(c.golden.at("i2v.in.image"), {0, 2, 3, 1});
        image = image.reshape({1, 1, image.dim(1), image.dim(2), 3});
        Tensor two = full({3}, 2, DType::F32), minus = full({3}, -1, DType::F32);
        TextFeatures text = own_text(c) ? pipeline.encode_text(c.request) : c.recorded(true);
        Tensor latents = pipeline.denoise(c.request, plan, channels_last(c.golden.at("i2v.in.latents")),
                                          pipeline.encode_image(affine(image, two, minus)), text, {});
        expect_close(channels_first(latents), c.golden.at("i2v.out.latents"), kLatents, "i2v.out.latents");
        if (c.golden.has("i2v.out.video"))
            expect_close(decoded(pipeline, latents, plan.output), c.golden.at("i2v.out.video"), kVideo,
                         "i2v.out.video");
    }
}
