// The program as its users meet it: exit codes, messages, files, events.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "../media.h"
#include "apps/program.h"
#include "core/check.h"
#include "device.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "io/text_file.h"
#include "io/video.h"

using namespace sana;
namespace fs = std::filesystem;

namespace {

// A folder of this test program, emptied once.
std::string scratch() {
    static const std::string folder = [] {
        fs::path path = fs::path(::testing::TempDir()) / "sana_cli";
        fs::remove_all(path);
        fs::create_directories(path);
        return path.string();
    }();
    return folder;
}

std::string model() {
    static const std::string folder = [] {
        std::string path = scratch() + "/tiny";
        EXPECT_EQ(sana_run({"--quiet", "init", "--preset", "tiny", "--random", "--out", path}).code, 0);
        return path;
    }();
    return folder;
}

std::vector<std::string> generation(const std::string& out, std::vector<std::string> more = {}) {
    std::vector<std::string> a = {"--quiet",    "generate", "--model", model(),    "--prompt",
                                  "a red kite", "--width",  "64",      "--height", "48",
                                  "--frames",   "5",        "--steps", "2",        "--threads",
                                  "2",          "--out",    out,       "--device", join(test_device())};
    a.insert(a.end(), more.begin(), more.end());
    return a;
}

std::string bytes_of(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

bool same_bytes(const std::string& a, const std::string& b) { return bytes_of(a) == bytes_of(b); }

// Exit code 2, one message that holds all the words, and nothing new in the folder.
void expect_refused(const std::vector<std::string>& arguments, const std::vector<std::string>& words) {
    model();
    auto listing = [] {
        std::vector<std::string> names;
        for (const auto& entry : fs::recursive_directory_iterator(scratch()))
            names.push_back(entry.path().string());
        std::sort(names.begin(), names.end());
        return names;
    };
    auto before = listing();
    Outcome o = sana_run(arguments);
    EXPECT_EQ(o.code, 2) << o.err;
    EXPECT_TRUE(o.err.starts_with("error: ") || o.err.find("\nerror: ") != std::string::npos) << o.err;
    for (const std::string& word : words)
        EXPECT_NE(o.err.find(word), std::string::npos) << word << " in: " << o.err;
    EXPECT_EQ(listing(), before);
}

std::string write_file(const std::string& name, const std::string& bytes) {
    std::string path = scratch() + "/" + name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
}

std::string photo() {
    std::string path = scratch() + "/photo.png";
    Tensor image = empty({37, 91, 3}, DType::U8);
    for (int64_t i = 0; i < image.numel(); ++i) image.data<uint8_t>()[i] = static_cast<uint8_t>(i * 7 / 13);
    write_png(path, image);
    return path;
}

}  // namespace

TEST(Cli, GenerateAndReproduceGiveTheSameBytes) {
    NEEDS_FFMPEG;
    std::string a = scratch() + "/a.mp4", b = scratch() + "/b.mp4";
    ASSERT_EQ(sana_run(generation(a, {"--seed", "7"})).code, 0);
    ASSERT_EQ(sana_run(generation(b, {"--seed", "7"})).code, 0);
    EXPECT_TRUE(same_bytes(a, b));
    EXPECT_FALSE(fs::exists(a + ".latents.safetensors"));
    auto recipe = nlohmann::json::parse(*read_recipe(a));
    EXPECT_EQ(recipe["parameters"]["seed"], 7);
    EXPECT_EQ(recipe["resolved"]["frames"], 5);
    // Not "auto": another device is to make the same video.
    EXPECT_EQ(recipe["parameters"]["precision"], test_device() == kCpu ? "fp32" : "bf16");
    EXPECT_FALSE(recipe["parameters"].contains("device"));
    EXPECT_EQ(recipe["model"].size(), 3u);
    std::string again = scratch() + "/again.mp4";
    Outcome o = sana_run({"reproduce", a, "--threads", "2", "--out", again, "--device", join(test_device())});
    ASSERT_EQ(o.code, 0) << o.err;
    EXPECT_TRUE(same_bytes(again, a));
    ASSERT_EQ(sana_run(generation(b, {"--seed", "8"})).code, 0);
    EXPECT_FALSE(same_bytes(a, b));
    ASSERT_EQ(sana_run(generation(b, {"--no-metadata"})).code, 0);
    EXPECT_FALSE(read_recipe(b).has_value());
    expect_refused({"reproduce", b}, {"no recipe"});
}

TEST(Cli, PictureOfAnySizeBecomesTheFirstFrame) {
    NEEDS_FFMPEG;
    for (const char* fit : {"crop", "pad", "stretch"}) {
        std::string out = scratch() + "/i2v_" + fit + ".mp4";
        Outcome o = sana_run(generation(out, {"--image", photo(), "--fit", fit, "--sampler", "euler"}));
        ASSERT_EQ(o.code, 0) << o.err;
        EXPECT_EQ(read_video(out, 100).frames.shape(), (Shape{5, 48, 64, 3}));
    }
    expect_refused(generation(scratch() + "/x.mp4", {"--image", photo(), "--frames", "1"}),
                   {"more than one frame"});
}

TEST(Cli, SizesAndFramesAreAdjustedWithAWord) {
    NEEDS_FFMPEG;
    std::string out = scratch() + "/odd.mp4";
    std::vector<std::string> a = generation(out, {"--frames", "7"});
    a.erase(a.begin());  // not quiet
    Outcome o = sana_run(a);
    ASSERT_EQ(o.code, 0) << o.err;
    EXPECT_NE(o.err.find("7 frames become 5"), std::string::npos) << o.err;
    expect_refused(generation(out, {"--bins", "off", "--width", "70"}), {"70", "64 or 80"});
}

TEST(Cli, LatentsGoRoundByEncodeAndDecode) {
    NEEDS_FFMPEG;
    std::string video = scratch() + "/l.mp4", latents = video + ".latents.safetensors";
    ASSERT_EQ(sana_run(generation(video, {"--keep-latents"})).code, 0);
    ASSERT_TRUE(fs::exists(latents));
    std::string again = scratch() + "/l2.mp4";
    Outcome o = sana_run({"--quiet", "decode", latents, "--model", model(), "--out", again, "--threads", "2",
                          "--device", join(test_device())});
    ASSERT_EQ(o.code, 0) << o.err;
    EXPECT_TRUE(same_bytes(again, video));
    std::string encoded = scratch() + "/e.safetensors";
    o = sana_run(
        {"--quiet", "encode", video, "--model", model(), "--out", encoded, "--device", join(test_device())});
    ASSERT_EQ(o.code, 0) << o.err;
    EXPECT_EQ(read_safetensors(encoded).tensors.at("latents").shape(),
              read_safetensors(latents).tensors.at("latents").shape());
    expect_refused({"decode", encoded + "x", "--model", model()}, {"no such file"});
    expect_refused({"decode", model() + "/vae/diffusion_pytorch_model.safetensors", "--model", model(),
                    "--out", scratch() + "/x.mp4"},
                   {"latents"});
}

TEST(Cli, PreviewsAreWritten) {
    NEEDS_FFMPEG;
    std::string folder = scratch() + "/preview";
    ASSERT_EQ(sana_run(generation(scratch() + "/p.mp4", {"--preview", folder, "--steps", "3"})).code, 0);
    EXPECT_GT(read_image(folder + "/step_0001.png").numel(), 0);
    EXPECT_TRUE(fs::exists(folder + "/step_0002.png"));
}

TEST(Cli, ConfigFilesAndTheTable) {
    std::string toml = write_file(
        "run.toml", "prompt = \"from \\\"toml\\\"\"\nsteps = 3 # few\nguidance = 2.5\nkeep-case = true\n");
    Outcome o = sana_run({"generate", "--config", toml, "--steps", "4", "--dump-config"});
    ASSERT_EQ(o.code, 0) << o.err;
    EXPECT_NE(o.out.find("steps = 4"), std::string::npos);
    EXPECT_NE(o.out.find("guidance = 2.5"), std::string::npos);
    EXPECT_NE(o.out.find("keep-case = true"), std::string::npos);
    // What it prints, it reads, and prints again.
    std::string second = write_file("again.toml", o.out);
    EXPECT_EQ(sana_run({"generate", "--config", second, "--dump-config"}).out, o.out);
    std::string json = write_file("run.json", R"({"prompt": "x", "seed": 12})");
    EXPECT_NE(sana_run({"generate", "--config", json, "--dump-config"}).out.find("seed = 12"),
              std::string::npos);
    expect_refused({"generate", "--config", write_file("bad.toml", "steps = = 3")}, {"bad.toml", "line 1"});
    expect_refused({"generate", "--config", write_file("unknown.toml", "step = 3")},
                   {"no parameter 'step'", "steps"});
    expect_refused({"generate", "--config", write_file("range.toml", "steps = 0")},
                   {"range.toml", "1 .. 1000"});
    expect_refused({"generate", "--config", scratch() + "/none.toml"}, {"none.toml"});
}

TEST(Cli, EventsAreJsonLines) {
    NEEDS_FFMPEG;
    std::vector<std::string> a = generation(scratch() + "/j.mp4");
    a[0] = "--json";
    Outcome o = sana_run(a);
    ASSERT_EQ(o.code, 0);
    std::istringstream lines(o.out);
    std::string line, last;
    int steps = 0;
    while (std::getline(lines, line)) {
        auto event = nlohmann::json::parse(line);
        steps += event["event"] == "progress" && event["phase"] == "denoise" ? 1 : 0;
        last = event["event"];
    }
    EXPECT_EQ(steps, 3);  // 0, 1, 2 of 2
    EXPECT_EQ(last, "done");
    a = generation(scratch() + "/j.mp4", {"--steps", "0"});
    a[0] = "--json";
    o = sana_run(a);
    EXPECT_EQ(o.code, 2);
    EXPECT_EQ(nlohmann::json::parse(o.out)["event"], "error");
}

TEST(Cli, BadInputIsRefusedWithOneClearMessage) {
    NEEDS_FFMPEG;
    std::string out = scratch() + "/bad.mp4";
    expect_refused({}, {"subcommand"});
    expect_refused({"generat"}, {"subcommand"});
    expect_refused({"generate", "--nonsense", "3"}, {"--nonsense"});
    expect_refused({"generate", "--model", scratch() + "/nowhere", "--prompt", "x"},
                   {"nowhere", "no such folder"});
    expect_refused({"generate", "--model", scratch(), "--prompt", "x"}, {"transformer/config.json"});
    expect_refused(generation(out, {"--prompt", ""}), {"prompt is empty"});
    expect_refused(generation(out, {"--prompt", " \n\t "}), {"prompt is empty"});
    expect_refused(generation(out, {"--steps", "0"}), {"--steps", "1 .. 1000"});
    expect_refused(generation(out, {"--steps", "two"}), {"--steps", "two"});
    expect_refused(generation(out, {"--steps", "1.5"}), {"--steps"});
    expect_refused(generation(out, {"--width", "-16"}), {"--width"});
    expect_refused(generation(out, {"--width", "99999999999999999999"}), {"--width"});
    expect_refused(generation(out, {"--frames", "0"}), {"--frames"});
    expect_refused(generation(out, {"--frames", "1000000"}), {"frames", "4093"});
    expect_refused(generation(out, {"--guidance", "nan"}), {"--guidance"});
    expect_refused(generation(out, {"--seed", "-1"}), {"--seed"});
    expect_refused(generation(out, {"--sampler", "heun"}), {"heun", "dpm"});
    expect_refused(generation(out, {"--image", scratch() + "/no.png"}), {"no.png"});
    expect_refused(generation(out, {"--image", write_file("empty.png", "")}), {"empty.png"});
    expect_refused(generation(out, {"--image", write_file("noise.png", std::string(400, 'q'))}),
                   {"noise.png"});
    expect_refused(generation(scratch() + "/no/such/place.mp4"), {"no such folder"});
    expect_refused(generation(scratch() + "/video.avi"), {"avi", "mp4"});
    expect_refused(generation(out, {"--prompt-template", scratch() + "/none.yaml"}), {"none.yaml"});
    expect_refused(generation(out, {"--transformer", write_file("junk.pth", "junk junk junk")}),
                   {"junk.pth"});
    expect_refused(generation(out, {"--tokenizer", write_file("tokenizer.json", "{}")}), {"tokenizer.json"});
    expect_refused({"inspect", scratch() + "/nowhere"}, {"nowhere"});
    expect_refused({"inspect", write_file("lies.safetensors", std::string("\x40\0\0\0\0\0\0\0{\"a\":", 13))},
                   {"lies.safetensors"});
    expect_refused({"init", "--preset", "huge", "--out", scratch() + "/m"}, {"huge", "tiny"});
    expect_refused({"init", "--out", model()}, {"holds a model already"});
    expect_refused({"convert", photo(), scratch() + "/c"}, {"photo.png"});
}

TEST(Cli, ADeviceThatCannotBeUsed) {
    NEEDS_FFMPEG;
    std::string out = scratch() + "/device.mp4";
    for (const char* name : {"gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:0 ", ""})
        expect_refused(generation(out, {"--device", name}), {"--device", "auto, cpu, cuda or cuda:N"});
    // Whether the build, the driver or the number is what is missing, the message says so and speaks of CUDA.
    expect_refused(generation(out, {"--device", "cuda:63"}), {"CUDA"});
    expect_refused({"decode", "x", "--model", model(), "--device", "cuda:63"}, {"CUDA"});
    expect_refused({"bench", "ops", "--device", "cuda:63"}, {"CUDA"});
    expect_refused({"bench", "ops", "--device", "tpu"}, {"tpu", "cuda:N"});
    Outcome o =
        sana_run(generation(out, {"--device", "cpu", "--vae-precision", "bf16", "--precision", "bf16"}));
    EXPECT_EQ(o.code, 0) << o.err;
    EXPECT_EQ(nlohmann::json::parse(*read_recipe(out))["resolved"]["device"], "cpu");
}

// A long prompt works; its end is not seen, and a note says so, once. A whole file in its place is refused.
TEST(Cli, LongPrompts) {
    NEEDS_FFMPEG;
    std::vector<std::string> a = generation(scratch() + "/long.mp4", {"--prompt", std::string(20000, 'a')});
    a.erase(a.begin());
    Outcome o = sana_run(a);
    EXPECT_EQ(o.code, 0) << o.err;
    size_t at = o.err.find("too long");
    ASSERT_NE(at, std::string::npos);
    EXPECT_EQ(o.err.find("too long", at + 1), std::string::npos);
    for (const char* name : {"--prompt", "--negative-prompt"}) {
        expect_refused(generation(scratch() + "/file.mp4", {name, std::string(100000, 'a')}),
                       {"100000", "20000"});
    }
}

// All mismatches at once, with the nearest names.
TEST(Cli, ConfigThatDisagreesWithTheWeights) {
    NEEDS_FFMPEG;
    std::string folder = scratch() + "/disagrees";
    fs::copy(model(), folder, fs::copy_options::recursive);
    auto path = folder + "/transformer/config.json";
    auto config = nlohmann::json::parse(bytes_of(path));
    config["num_layers"] = 5;
    config["mlp_ratio"] = 4.0;
    std::ofstream(path) << config.dump();
    std::vector<std::string> a = generation(scratch() + "/d.mp4");
    a[3] = folder;
    expect_refused(a, {"missing", "of another shape", "transformer_blocks.4.attn1.to_q.weight",
                       "ff.conv_inverted.weight"});
    expect_refused({"inspect", folder}, {"do not fit"});
    config["num_layers"] = 100000;
    std::ofstream(path) << config.dump();
    expect_refused(a, {"num_layers", "1 .. 1024"});
    std::ofstream(path) << "{ not json";
    expect_refused(a, {"config.json"});
}

TEST(Cli, FullDiskAndNoPermission) {
    std::string out = scratch() + "/full.mp4";
    model();
    rlimit old{}, tight{};
    getrlimit(RLIMIT_FSIZE, &old);
    tight = old;
    tight.rlim_cur = 2000;
    std::signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &tight);
    Outcome o = sana_run(generation(out));
    setrlimit(RLIMIT_FSIZE, &old);
    EXPECT_EQ(o.code, 2) << o.err;
    for (const auto& entry : fs::directory_iterator(scratch())) {
        EXPECT_EQ(entry.path().string().find("full.mp4"), std::string::npos) << entry.path();
    }
    if (geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
    std::string closed = scratch() + "/closed";
    fs::create_directory(closed);
    fs::permissions(closed, fs::perms::owner_read | fs::perms::owner_exec);
    EXPECT_EQ(sana_run(generation(closed + "/a.mp4")).code, 2);
}

TEST(Cli, CancellingEndsCleanly) {
    NEEDS_FFMPEG;
    std::string out = scratch() + "/cancelled.mp4";
    std::thread interrupter([] {
        std::this_thread::sleep_for(std::chrono::milliseconds(1500));
        std::raise(SIGTERM);
    });
    Outcome o =
        sana_run(generation(out, {"--steps", "1000", "--frames", "81", "--width", "256", "--height", "256"}));
    interrupter.join();
    EXPECT_EQ(o.code, 3) << o.err;
    EXPECT_FALSE(fs::exists(out));
}

TEST(Cli, ConvertGoesBothWays) {
    NEEDS_FFMPEG;
    std::string pth = scratch() + "/t.pth", folder = scratch() + "/back";
    ASSERT_EQ(
        sana_run({"convert", model() + "/transformer", pth, "--config", model() + "/transformer/config.json"})
            .code,
        0);
    ASSERT_EQ(sana_run({"convert", pth, folder, "--head-dim", "24"}).code, 0);
    TensorMap before = read_safetensors(model() + "/transformer/diffusion_pytorch_model.safetensors").tensors;
    TensorMap after = read_safetensors(folder + "/diffusion_pytorch_model.safetensors").tensors;
    ASSERT_EQ(before.size(), after.size());
    for (const auto& [name, tensor] : before)
        EXPECT_EQ(max_abs_difference(tensor, after.at(name)), 0.0) << name;
    std::string a = scratch() + "/ca.mp4", b = scratch() + "/cb.mp4";
    ASSERT_EQ(sana_run(generation(a)).code, 0);
    ASSERT_EQ(sana_run(generation(b, {"--transformer", pth})).code, 0);
    EXPECT_EQ(max_abs_difference(read_video(a, 99).frames, read_video(b, 99).frames), 0.0);
    expect_refused({"convert", pth, scratch() + "/other"}, {"112", "--config"});
    expect_refused({"convert", pth, folder}, {"is there already"});
}

// Every kind of benchmark, at sizes of milliseconds.
TEST(Cli, BenchOfModels) {
    std::string file = scratch() + "/bench.json";
    for (const char* what : {"dit", "text", "vae"}) {
        SCOPED_TRACE(what);
        Outcome o =
            sana_run({"--json",  "bench",     what,        "--preset", "tiny",     "--device", "cpu",
                      "--width", "32",        "--height",  "32",       "--frames", "5",        "--lengths",
                      "7",       "4",         "--repeats", "2",        "--tflops", "0.1",      "--bandwidth",
                      "0.01",    "--profile", "--out",     file});
        ASSERT_EQ(o.code, 0) << o.err;
        auto json = nlohmann::json::parse(o.out), kept = nlohmann::json::parse(read_text_file(file));
        EXPECT_EQ(json["event"], "bench");
        EXPECT_EQ(json["what"], what);
        EXPECT_EQ(json["runs"], 2);
        EXPECT_GT(json["floor_share"].get<double>(), 0);
        EXPECT_LE(json["min_s"].get<double>(), json["mean_s"].get<double>());
        EXPECT_GE(json["memory"]["peak_bytes"].get<int64_t>(), json["memory"]["before_bytes"].get<int64_t>());
        EXPECT_FALSE(json["scopes"].empty());
        EXPECT_EQ(json["environment"]["device"], "cpu");
        EXPECT_EQ(kept["mean_s"], json["mean_s"]);
    }
    Outcome o =
        sana_run({"--json", "bench", "request", "--preset", "tiny", "--device", "cpu", "--width", "32",
                  "--height", "32", "--frames", "5", "--steps", "6", "--step-cache", "5", "--repeats", "1"});
    ASSERT_EQ(o.code, 0) << o.err;
    auto json = nlohmann::json::parse(o.out);
    ASSERT_EQ(json["runs"].size(), 3u);  // first, second, and one without the step cache
    EXPECT_GT(json["runs"][0]["phases_s"]["denoise"].get<double>(), 0);
    EXPECT_NE(json["runs"][0]["notes"].dump().find("steps were not computed"), std::string::npos);
    EXPECT_GT(json["step_cache_latents_relative_l2"].get<double>(), 0);
    for (const char* vram : {"8G", "lots"})
        expect_refused({"bench", "request", "--preset", "tiny", "--device", "cpu", "--vram", vram}, {vram});
    expect_refused({"bench", "dit", "--preset", "huge"}, {"huge", "tiny"});
    expect_refused({"bench", "dit", "--preset", "tiny", "--width", "100", "--device", "cpu"}, {"100", "96"});
}

TEST(Cli, HelpAndVersion) {
    for (const char* command :
         {"generate", "reproduce", "encode", "decode", "inspect", "convert", "init", "bench", "version"}) {
        Outcome o = sana_run({command, "--help"});
        EXPECT_EQ(o.code, 0);
        EXPECT_GT(o.out.size(), 80u) << command;
    }
    EXPECT_NE(sana_run({"version"}).out.find("sana "), std::string::npos);
    EXPECT_EQ(nlohmann::json::parse(sana_run({"--json", "version"}).out)["event"], "version");
    EXPECT_EQ(sana_run({"inspect", model()}).code, 0);
}
