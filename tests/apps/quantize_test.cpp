// sana quantize, and generation with fp8 weights.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/program.h"
#include "core/tensor.h"
#include "device.h"

using namespace sana;
namespace fs = std::filesystem;

namespace {

nlohmann::json report(std::vector<std::string> more = {}) {
    std::vector<std::string> a = {"--json",   "quantize", "--report", "--preset",
                                  "tiny",     "--random", "--device", join(test_device()),
                                  "--frames", "5",        "--width",  "96",
                                  "--height", "64",       "--layers", "2",
                                  "--batch",  "1"};
    a.insert(a.end(), more.begin(), more.end());
    Outcome o = sana_run(a);
    EXPECT_EQ(o.code, 0) << o.err;
    return nlohmann::json::parse(o.out.substr(o.out.find("{\"event\": \"fp8\"")));
}

}  // namespace

TEST(Quantize, ReportsEveryLayerAndThePrediction) {
    nlohmann::json r = report();
    EXPECT_EQ(r["layers"].size(), 2 * 6);
    double before = 1;
    for (const auto& layer : r["layers"]) {
        double error = layer["error"];
        EXPECT_LE(error, before);
        // Two operands of 3 bits of mantissa: 3.7e-2 for values spread evenly within their binades.
        EXPECT_GT(error, 1e-2) << layer;
        EXPECT_LT(error, 6e-2) << layer;
        EXPECT_FALSE(layer["kept"]);
        before = error;
    }
    EXPECT_LT(r["prediction_error"], 3e-2);
    EXPECT_EQ(r["prediction_error"], r["prediction_error_chosen"]);
    EXPECT_EQ(r["keep"], "blocks.*.cross.out");
}

TEST(Quantize, LayersAboveTheThresholdStayAsTheyAre) {
    nlohmann::json all = report(), none = report({"--threshold", "0"});
    EXPECT_EQ(none["prediction_error_chosen"], 0);
    double middle = all["layers"][10]["error"];
    nlohmann::json some = report({"--threshold", join(middle)});
    EXPECT_LT(some["prediction_error_chosen"], all["prediction_error"]);
    EXPECT_GT(some["prediction_error_chosen"], 0);
    std::string keep = some["keep"];
    EXPECT_NE(keep.find(std::string(all["layers"][0]["layer"])), std::string::npos);
    // The layers that are named are the ones that are left out next time.
    nlohmann::json rest = report({"--keep", keep});
    EXPECT_EQ(rest["prediction_error"], some["prediction_error_chosen"]);
}

TEST(Quantize, RefusesWhatItCannotDo) {
    for (auto [arguments, word] : std::vector<std::pair<std::vector<std::string>, std::string>>{
             {{"quantize"}, "--report"},
             {{"quantize", "--report"}, "--model"},
             {{"quantize", "--report", "--preset", "tiny"}, "--random"},
             {{"quantize", "--report", "--preset", "huge", "--random"}, "huge"},
             {{"quantize", "--report", "--model", "/nowhere"}, "/nowhere"},
             {{"quantize", "--report", "--preset", "tiny", "--random", "--device", "cpu", "--keep", "*"},
              "no layer"}}) {
        Outcome o = sana_run(arguments);
        EXPECT_EQ(o.code, 2) << o.err;
        EXPECT_NE(o.err.find(word), std::string::npos) << o.err;
    }
}

TEST(Quantize, GenerationWithFp8IsNearThatWithBf16) {
    std::string folder = testing::TempDir() + "/sana_fp8";
    fs::remove_all(folder);
    ASSERT_EQ(sana_run({"--quiet", "init", "--preset", "tiny", "--random", "--out", folder + "/model"}).code,
              0);
    auto generated = [&](const std::string& name, std::vector<std::string> more) {
        std::vector<std::string> a = {"--quiet",  "generate",
                                      "--model",  folder + "/model",
                                      "--prompt", "a red kite",
                                      "--width",  "64",
                                      "--height", "48",
                                      "--frames", "5",
                                      "--steps",  "2",
                                      "--out",    folder + "/" + name,
                                      "--device", join(test_device())};
        a.insert(a.end(), more.begin(), more.end());
        Outcome o = sana_run(a);
        EXPECT_EQ(o.code, 0) << o.err;
    };
    generated("fp8.y4m", {"--precision", "fp8"});
    generated("kept.y4m", {"--precision", "fp8", "--fp8-keep", "blocks.*"});
    generated("bf16.y4m", {"--precision", "bf16"});
    auto bytes = [&](const std::string& name) {
        std::ifstream in(folder + "/" + name, std::ios::binary);
        return std::string{std::istreambuf_iterator<char>(in), {}};
    };
    EXPECT_EQ(bytes("kept.y4m"), bytes("bf16.y4m"));
    EXPECT_NE(bytes("fp8.y4m"), bytes("bf16.y4m"));
    EXPECT_EQ(bytes("fp8.y4m").size(), bytes("bf16.y4m").size());
    fs::remove_all(folder);
}
