// sana data and sana eval world from the command line.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "../media.h"
#include "apps/program.h"
#include "text/tokenizer.h"

using namespace sana;
namespace fs = std::filesystem;

namespace {

std::string folder(const std::string& name) {
    fs::path path = fs::path(::testing::TempDir()) / ("sana_data_cli_" + name);
    fs::remove_all(path);
    fs::create_directories(path);
    return path.string();
}

std::string bytes_of(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST(DataCli, DrawnClipsCanBeReadAsADataset) {
    NEEDS_FFMPEG;
    std::string path = folder("draw"), again = folder("again");
    for (const std::string& out : {path, again})
        ASSERT_EQ(sana_run({"--quiet", "data", "draw", "--out", out, "--count", "3", "--format", "y4m",
                            "--frames", "5", "--height", "32", "--width", "48"})
                      .code,
                  0);
    for (const char* file : {"/clip_00002.y4m", "/clip_00003.txt", "/clip_00001.json"})
        EXPECT_EQ(bytes_of(path + file), bytes_of(again + file)) << file;
    auto truth = nlohmann::json::parse(bytes_of(path + "/clip_00001.json"));
    EXPECT_EQ(truth["objects"][0]["track"].size(), 5u);
    EXPECT_EQ(truth["captions"].size(), 4u);
    Outcome check = sana_run({"data", "check", path, "--buckets", "5x32x48"});
    EXPECT_EQ(check.code, 0) << check.err;
    EXPECT_NE(check.out.find("5 x 32 x 48: 3 samples"), std::string::npos) << check.out;
    EXPECT_EQ(sana_run({"data", "check", path, "--buckets", "9x32x48"}).code, 2);
    EXPECT_EQ(sana_run({"data", "check", path, "--buckets", "nonsense"}).code, 2);
    EXPECT_EQ(sana_run({"data", "draw", "--out", path, "--height", "3"}).code, 2);
}

TEST(DataCli, ATokenizerOfTheWorld) {
    std::string file = folder("tokenizer") + "/deep/tokenizer.json";
    Outcome made = sana_run({"data", "tokenizer", "--out", file, "--size", "1200", "--captions", "200"});
    ASSERT_EQ(made.code, 0) << made.err;
    EXPECT_NE(made.out.find("1200 pieces"), std::string::npos) << made.out;
    EXPECT_EQ(Tokenizer::load(file).encode("a red circle").size(), 4u);
}

TEST(DataCli, TheJudgeOnDrawnClips) {
    NEEDS_FFMPEG;
    std::string path = folder("eval");
    Outcome eval = sana_run({"eval", "world", "--drawn", "--prompts", "6", "--out", path + "/scores.json",
                             "--sheet", path + "/sheet.png"});
    ASSERT_EQ(eval.code, 0) << eval.err;
    auto scores = nlohmann::json::parse(bytes_of(path + "/scores.json"));
    EXPECT_EQ(scores["all"]["right"], 6) << scores;
    EXPECT_EQ(scores["answers"].size(), 6u);
    EXPECT_EQ(scores["image_to_video"]["clips"], 1);
    EXPECT_TRUE(fs::file_size(path + "/sheet.png") > 1000);
    EXPECT_EQ(sana_run({"eval", "world", "--drawn", "--prompts", "1", "--noise", "0.5"}).code, 2);
    // A place that cannot be written is refused before anything is made, and what earlier runs wrote stays.
    std::string kept = bytes_of(path + "/scores.json"), nowhere = path + "/no/x.png";
    for (const auto& [out, picture] :
         {std::pair(path + "/scores.json", nowhere), std::pair(nowhere, path + "/sheet.png")})
        EXPECT_EQ(
            sana_run({"eval", "world", "--drawn", "--prompts", "100000", "--out", out, "--sheet", picture})
                .code,
            2);
    EXPECT_EQ(bytes_of(path + "/scores.json"), kept);
    setenv("SANA_EMBEDDED_MODEL", (path + "/nowhere").c_str(), 1);
    EXPECT_EQ(sana_run({"eval", "world", "--prompts", "1"}).code, 2);
    // Kept frames are judged without a model.
    std::string frames = path + "/frames";
    ASSERT_EQ(sana_run({"eval", "world", "--drawn", "--prompts", "2", "--keep", frames}).code, 0);
    Outcome again =
        sana_run({"eval", "world", "--kept", frames, "--prompts", "2", "--out", path + "/again.json"});
    ASSERT_EQ(again.code, 0) << again.err;
    EXPECT_EQ(nlohmann::json::parse(bytes_of(path + "/again.json"))["all"]["right"], 2);
    again = sana_run({"eval", "world", "--kept", frames, "--prompts", "3"});
    EXPECT_EQ(again.code, 2);
    EXPECT_NE(again.err.find("2.safetensors: is not there"), std::string::npos) << again.err;
    unsetenv("SANA_EMBEDDED_MODEL");
}
