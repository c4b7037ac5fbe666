// sana train with clips of several sizes, with pictures alone, and with a held-out share of files.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "../media.h"
#include "apps/tiny_model.h"
#include "core/check.h"
#include "device.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "io/text_file.h"
#include "io/video.h"

using namespace sana;
namespace fs = std::filesystem;

namespace {

class TrainSizes : public TinyModel {
protected:
    static Outcome run(const std::string& stage, const std::string& out, std::vector<std::string> more) {
        std::vector<std::string> a = {"train",
                                      "--stage",
                                      stage,
                                      "--model",
                                      model(),
                                      "--out",
                                      folder() + "/" + out,
                                      "--device",
                                      join(test_device()),
                                      "--batch",
                                      "1",
                                      "--picture-batch",
                                      "2",
                                      "--text-tokens",
                                      "16",
                                      "--warmup",
                                      "1",
                                      "--rate",
                                      "1e-3",
                                      "--hold-out-batches",
                                      "2",
                                      "--log-every",
                                      "1",
                                      "--workers",
                                      "1"};
        a.insert(a.end(), more.begin(), more.end());
        return sana_run(a);
    }
    // What a run that cannot start says.
    static std::string refusal(std::vector<std::string> more, const std::string& stage = "dit") {
        Outcome o = run(stage, "refused", std::move(more));
        EXPECT_EQ(o.code, 2) << o.err;
        return o.err;
    }
    static void expect_equal(const std::string& a, const std::string& b, int64_t step) {
        auto state = [&](const std::string& out) {
            return read_folder(join(folder(), "/", out, "/checkpoints/step-0000000", step), "state").tensors;
        };
        TensorMap x = state(a), y = state(b);
        ASSERT_EQ(x.size(), y.size());
        for (const auto& [name, tensor] : x) EXPECT_EQ(max_abs_difference(tensor, y.at(name)), 0) << name;
    }
    static bool held_out(const std::string& out) {
        return read_text_file(folder() + "/" + out + "/metrics.jsonl").find("\"held_out\"") !=
               std::string::npos;
    }
    static void draw(const std::string& out, int count, int frames, int height, int width) {
        ASSERT_EQ(sana_run({"--quiet", "data", "draw", "--out", out, "--count", std::to_string(count),
                            "--format", "y4m", "--frames", std::to_string(frames), "--height",
                            std::to_string(height), "--width", std::to_string(width)})
                      .code,
                  0);
    }
};

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

}  // namespace

TEST_F(TrainSizes, DrawnClipsOfSeveralSizesResumeBitForBit) {
    for (std::string stage : {"dit", "vae"}) {
        SCOPED_TRACE(stage);
        std::vector<std::string> sizes = {"--buckets",        "5x32x48,9x48x32,5x32x32",
                                          "--image-interval", "3",
                                          "--accumulation",   "2",
                                          "--image-to-video", "0.5",
                                          "--emphasis",       "fast spin",
                                          "--emphasis-share", "0.5"};
        auto train = [&](const std::string& out, const std::string& steps, bool resume) {
            std::vector<std::string> more = sizes;
            more.insert(more.end(), {"--steps", steps});
            if (resume) more.push_back("--resume");
            Outcome o = run(stage, stage + out, more);
            ASSERT_EQ(o.code, 0) << o.err;
        };
        train("-whole", "4", false);
        train("-parts", "2", false);
        // What the run keeps of its parameters says the same again.
        std::string config = folder() + "/" + stage + "-parts/config.toml", text = read_text_file(config);
        EXPECT_SAYS(text, "buckets = \"5x32x48,9x48x32,5x32x32\"");
        EXPECT_SAYS(text, "# width = ");
        Outcome again = sana_run({"train", config, "--steps", "3", "--resume"});
        ASSERT_EQ(again.code, 0) << again.err;
        train("-parts", "4", true);
        expect_equal(stage + "-whole", stage + "-parts", 4);
        EXPECT_TRUE(held_out(stage + "-whole"));
    }
}

TEST_F(TrainSizes, FilesGoToTheNearestSizeAndSamplesHaveTheFirst) {
    NEEDS_FFMPEG;
    std::string data = folder() + "/aspects";
    draw(data + "/wide", 3, 9, 40, 60);
    draw(data + "/tall", 3, 5, 60, 40);
    std::ofstream(folder() + "/prompts.txt") << "a red circle\n";
    std::vector<std::string> more = {"--data",           data,
                                     "--pictures",       data + "/wide",
                                     "--image-interval", "2",
                                     "--buckets",        "1x32x32,9x32x48,5x48x32",
                                     "--prompts",        folder() + "/prompts.txt",
                                     "--sample-steps",   "1"};
    auto train = [&](const std::string& out, const std::string& steps, bool resume) {
        std::vector<std::string> all = more;
        all.insert(all.end(), {"--steps", steps});
        if (resume) all.push_back("--resume");
        Outcome o = run("dit", out, all);
        ASSERT_EQ(o.code, 0) << o.err;
    };
    train("files-whole", "5", false);
    train("files-parts", "3", false);
    train("files-parts", "5", true);
    expect_equal("files-whole", "files-parts", 5);
    VideoFrames sample = read_video(folder() + "/files-whole/samples/step-5/1.mp4", 100);
    EXPECT_TRUE(sample.frames.shape() == (Shape{9, 32, 48, 3})) << join(sample.frames);
}

TEST_F(TrainSizes, SizesThatCannotBeAreNamed) {
    std::string text = refusal({"--buckets", "5x32x48", "--width", "48"});
    EXPECT_SAYS(text, "buckets and width are both given");
    text = refusal({"--buckets", "5x32x48,8x48x32"});
    EXPECT_SAYS(text, "8x48x32: 8 frames are not 1 + 4k, which this model needs; use 5 or 9");
    text = refusal({"--buckets", "5x32x48,5x40x32"});
    EXPECT_SAYS(text, "5x40x32: height 40 is not a multiple of 16, which this model needs; use 32 or 48");
    text = refusal({"--width", "52", "--height", "32", "--frames", "5"}, "vae");
    EXPECT_SAYS(text, "5x32x52: width 52 is not a multiple of 8");
    text = refusal({"--width", "48", "--height", "32", "--frames", "4"}, "vae");
    EXPECT_SAYS(text, "4 frames are not 1 + 4k");
    text = refusal({"--buckets", "5x32x48,5x48x32", "--clips", "4"});
    EXPECT_SAYS(text, "(clips = 4) have one size, and there are 2 buckets");
    text = refusal({"--buckets", "5x32x48,1x48x32"});
    EXPECT_SAYS(text, "the bucket 1x48x32 is for pictures");
    text = refusal({"--buckets", "5x32"});
    EXPECT_SAYS(text, "'5x32' is no bucket");
}

TEST_F(TrainSizes, AShareOfFilesIsHeldOut) {
    NEEDS_FFMPEG;
    std::string data = folder() + "/shared";
    draw(data, 12, 5, 32, 32);
    std::vector<std::string> size = {"--data", data, "--width", "32", "--height", "32", "--frames", "5"};
    auto with = [&](std::vector<std::string> more) {
        more.insert(more.end(), size.begin(), size.end());
        return more;
    };
    Outcome o = run("dit", "share", with({"--steps", "1", "--held-out-share", "0.5"}));
    ASSERT_EQ(o.code, 0) << o.err;
    EXPECT_TRUE(held_out("share"));
    o = run("dit", "no-share", with({"--steps", "1"}));
    ASSERT_EQ(o.code, 0) << o.err;
    EXPECT_FALSE(held_out("no-share"));
    // Training goes on with the clips that it began with.
    o = run("dit", "share", with({"--steps", "2", "--held-out-share", "0.25", "--resume"}));
    EXPECT_EQ(o.code, 2) << o.err;
    EXPECT_SAYS(refusal(with({"--held-out-share", "0.5", "--held-out", "world"})),
                "held-out-share and held-out are both given");
    EXPECT_SAYS(refusal(with({"--held-out-share", "0.0001"})), "none is in the held-out share");
    EXPECT_SAYS(refusal({"--held-out-share", "0.5"}), "held-out-share is of clips from files");
}

TEST_F(TrainSizes, PicturesAlone) {
    NEEDS_FFMPEG;
    std::string data = folder() + "/pictures", clips = folder() + "/as-pictures";
    draw(clips, 2, 5, 32, 48);
    fs::create_directories(data);
    for (int i = 0; i < 3; ++i) {
        std::string base = data + "/" + std::to_string(i);
        write_png(base + ".png", full({40, 50, 3}, 40 + 60 * i, DType::U8));
        std::ofstream(base + ".txt") << "a grey wall\n";
    }
    std::ofstream(folder() + "/prompts.txt") << "a red circle\n";
    for (const std::string stage : {"dit", "vae"}) {
        SCOPED_TRACE(stage);
        for (const std::string& from : {data, clips}) {
            Outcome o = run(stage, stage + fs::path(from).filename().string(),
                            {"--steps", "2", "--data", from, "--frames", "1", "--width", "48", "--height",
                             "32", "--prompts", folder() + "/prompts.txt", "--sample-steps", "1"});
            ASSERT_EQ(o.code, 0) << o.err;
        }
    }
    Outcome o = run("dit", "flat", {"--steps", "3", "--buckets", "1x32x48,1x48x32", "--data", clips});
    ASSERT_EQ(o.code, 0) << o.err;
}
