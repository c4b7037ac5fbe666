// Generation without --model: where the embedded model is looked for, its defaults, and what is said of prompts. A small
// random model stands in.
#include "apps/embedded_model.h"
#include "../media.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/program.h"
#include "device.h"
#include "folders.h"
#include "io/text_file.h"
#include "io/video.h"
#include "pipeline/batch_pipeline.h"
#include "train/world/judge.h"

using namespace sana;
using sana::apps::find_embedded_model;
namespace fs = std::filesystem;

namespace {

class EmbeddedModel : public ::testing::Test {
protected:
    static void SetUpTestSuite() {
        fs::remove_all(folder());
        fs::create_directories(folder());
        ASSERT_EQ(sana_run({"--quiet", "init", "--preset", "tiny", "--out", model()}).code, 0);
    }
    void SetUp() override { setenv("SANA_EMBEDDED_MODEL", model().c_str(), 1); }
    void TearDown() override { unsetenv("SANA_EMBEDDED_MODEL"); }
    static std::string folder() { return (fs::path(::testing::TempDir()) / "sana_embedded").string(); }
    static std::string model() { return folder() + "/tree/models/embedded"; }

    // What the model says about itself.
    static void describe(const nlohmann::json& own) {
        std::string path = model() + "/model_index.json";
        auto index = nlohmann::json::parse(read_text_file(path));
        index["_sana"] = own;
        write_text_file(path, index.dump());
    }
    static Outcome generate(const std::string& prompt, std::vector<std::string> more = {}) {
        std::vector<std::string> a = {"generate",          "--prompt",          prompt,
                                      "--device",          join(test_device()), "--out",
                                      folder() + "/o.y4m", "--steps",           "1"};
        a.insert(a.end(), more.begin(), more.end());
        return sana_run(a);
    }
};

}  // namespace

TEST_F(EmbeddedModel, IsFoundFromTheProgramAndItsSourceTree) {
    EXPECT_EQ(find_embedded_model(folder() + "/tree/build/dev/bin"), model());
    EXPECT_EQ(find_embedded_model(folder() + "/usr/bin"), "");
    fs::create_directories(folder() + "/usr/share/sana/embedded");
    fs::copy(model() + "/model_index.json", folder() + "/usr/share/sana/embedded");
    EXPECT_EQ(find_embedded_model(folder() + "/usr/bin"), folder() + "/usr/share/sana/embedded");
}

TEST_F(EmbeddedModel, WithoutOneTheErrorSaysWhatToDo) {
    setenv("SANA_EMBEDDED_MODEL", (folder() + "/nowhere").c_str(), 1);
    Outcome o = generate("x");
    EXPECT_EQ(o.code, 2);
    for (const char* word : {"--model", "nowhere", "recipes/embedded"})
        EXPECT_NE(o.err.find(word), std::string::npos) << o.err;
}

TEST_F(EmbeddedModel, ItsDefaultsHoldUnlessSomethingElseIsAsked) {
    NEEDS_FFMPEG;
    describe({{"defaults", {{"width", 64}, {"height", 32}, {"frames", 5}}}});
    ASSERT_EQ(generate("a red circle").code, 0);
    EXPECT_EQ(read_video(folder() + "/o.y4m", 99).frames.shape(), (Shape{5, 32, 64, 3}));
    ASSERT_EQ(generate("a red circle", {"--height", "48"}).code, 0);
    EXPECT_EQ(read_video(folder() + "/o.y4m", 99).frames.shape(), (Shape{5, 48, 64, 3}));
    EXPECT_NE(sana_run({"generate", "--dump-config"}).out.find("width = 64"), std::string::npos);
    describe({{"defaults", {{"steps", 0}}}});
    Outcome bad = sana_run({"generate", "--prompt", "x", "--out", folder() + "/o.y4m"});
    EXPECT_EQ(bad.code, 2);
    EXPECT_NE(bad.err.find("model_index.json"), std::string::npos) << bad.err;
}

TEST_F(EmbeddedModel, AModelOfTheDrawnWorldSaysWhatItKnows) {
    nlohmann::json own = {{"defaults", {{"width", 32}, {"height", 32}, {"frames", 1}}}};
    describe(own);
    EXPECT_EQ(generate("a dog runs over the meadow").err.find("dog"), std::string::npos);
    own["trained_on"] = "drawn world";
    describe(own);
    Outcome far = generate("a dog runs over the meadow"),
            near = generate("a small red circle moves left over a blue background");
    ASSERT_EQ(far.code, 0) << far.err;
    EXPECT_NE(far.err.find("'dog'"), std::string::npos) << far.err;
    EXPECT_NE(far.err.find("circle"), std::string::npos) << far.err;
    EXPECT_EQ(near.err.find("it does not know"), std::string::npos) << near.err;
}

// The trained model of the source tree, with a prompt that it masters and few steps, so that this takes seconds.
TEST(TheEmbeddedModel, ShowsWhatIsAsked) {
    ModelPaths paths;
    paths.folder = test::tests_folder() + "/../models/embedded";
    ModelFolder model(paths);
    Request form;
    form.size = {160, 96};
    form.frames = 33;  // what it is trained on
    form.steps = 8;
    form.guidance = 4;
    std::vector<Tensor> clips =
        BatchPipeline(model, {.device = test_device()})
            .generate(form, {{"a large red circle stays still over a blue background", 1, {}}});
    world::Seen seen = world::look_at(clips[0]);
    ASSERT_EQ(seen.things.size(), 1u);
    EXPECT_EQ(world::name_of(seen.things[0].color), "red");
    EXPECT_EQ(world::name_of(seen.things[0].shape), "circle");
    EXPECT_EQ(world::name_of(seen.things[0].size), "large");
    EXPECT_EQ(world::name_of(seen.things[0].motion), "still");
    EXPECT_EQ(world::name_of(seen.background), "blue");
}
