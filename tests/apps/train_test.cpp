// sana train from the command line: an autoencoder, a transformer with its text encoder, a LoRA of it and its use.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "../media.h"
#include "apps/tiny_model.h"
#include "core/check.h"
#include "device.h"
#include "io/safetensors.h"
#include "ops/layout.h"

using namespace sana;
namespace fs = std::filesystem;

namespace {

class TrainCommand : public TinyModel {
protected:
    // The bytes of a .y4m file after the header, which holds the recipe.
    static std::string pixels(const std::string& name) {
        std::ifstream in(folder() + "/" + name, std::ios::binary);
        std::string bytes{std::istreambuf_iterator<char>(in), {}};
        return bytes.substr(bytes.find('\n') + 1);
    }

    static Outcome run(const std::string& stage, const std::string& out, std::vector<std::string> more,
                       bool quiet = true) {
        std::vector<std::string> a = {"train",
                                      "--stage",
                                      stage,
                                      "--model",
                                      model(),
                                      "--out",
                                      folder() + "/" + out,
                                      "--device",
                                      join(test_device()),
                                      "--width",
                                      "64",
                                      "--height",
                                      "64",
                                      "--frames",
                                      "5",
                                      "--batch",
                                      "1",
                                      "--warmup",
                                      "1",
                                      "--rate",
                                      "1e-3",
                                      "--hold-out-batches",
                                      "1",
                                      "--log-every",
                                      "1",
                                      "--workers",
                                      "1"};
        if (quiet) a.insert(a.begin(), "--quiet");
        a.insert(a.end(), more.begin(), more.end());
        return sana_run(a);
    }
};

}  // namespace

TEST_F(TrainCommand, AutoencoderThatGoesOn) {
    Outcome first = run("vae", "vae", {"--steps", "1"});
    ASSERT_EQ(first.code, 0) << first.err;
    EXPECT_EQ(run("vae", "vae", {"--steps", "2"}).code, 2);  // a run is there already
    Outcome second = run("vae", "vae", {"--steps", "2", "--resume"});
    ASSERT_EQ(second.code, 0) << second.err;
    EXPECT_TRUE(fs::exists(folder() + "/vae/checkpoints/step-00000002/run.json"));
    EXPECT_TRUE(fs::exists(folder() + "/vae/model/vae/config.json"));
    EXPECT_TRUE(fs::exists(folder() + "/vae/model/transformer/config.json"));
}

TEST_F(TrainCommand, TransformerAndItsLora) {
    Outcome whole = run("dit", "dit", {"--steps", "2", "--train-text-encoder"});
    ASSERT_EQ(whole.code, 0) << whole.err;
    EXPECT_TRUE(fs::exists(folder() + "/dit/model/text_encoder/config.json"));
    Outcome lora = run("dit", "lora", {"--steps", "2", "--lora-rank", "2"});
    ASSERT_EQ(lora.code, 0) << lora.err;
    std::string file = folder() + "/lora/model/pytorch_lora_weights.safetensors";
    Checkpoint written = read_safetensors(file);
    EXPECT_EQ(written.tensors.count("transformer.transformer_blocks.0.attn1.to_q.lora_A.weight"), 1u);
    EXPECT_EQ(written.metadata.count("lora_adapter_metadata"), 1u);
    auto make = [&](const std::string& out, std::vector<std::string> more) {
        std::vector<std::string> a = {"generate",
                                      "--model",
                                      model(),
                                      "--prompt",
                                      "a red kite",
                                      "--width",
                                      "64",
                                      "--height",
                                      "48",
                                      "--frames",
                                      "5",
                                      "--steps",
                                      "1",
                                      "--device",
                                      join(test_device()),
                                      "--out",
                                      folder() + "/" + out};
        a.insert(a.end(), more.begin(), more.end());
        return sana_run(a);
    };
    Outcome with = make("with.y4m", {"--lora", file + ":0.8"});
    ASSERT_EQ(with.code, 0) << with.err;
    EXPECT_NE(with.err.find("layers with weight 0.8"), std::string::npos) << with.err;
    EXPECT_EQ(make("none.y4m", {"--lora", folder() + "/none.safetensors"}).code, 2);

    // Added to the weights for good, it makes the same video.
    Outcome merged = sana_run(
        {"convert", model() + "/transformer", folder() + "/merged/transformer", "--lora", file + ":0.8"});
    ASSERT_EQ(merged.code, 0) << merged.err;
    EXPECT_NE(merged.err.find("layers with weight 0.8"), std::string::npos) << merged.err;
    ASSERT_EQ(make("merged.y4m", {"--transformer", folder() + "/merged/transformer"}).code, 0);
    ASSERT_EQ(make("without.y4m", {"--lora", file + ":0"}).code, 0);
    EXPECT_EQ(pixels("merged.y4m"), pixels("with.y4m"));
    EXPECT_NE(pixels("without.y4m"), pixels("with.y4m"));
    EXPECT_EQ(sana_run({"convert", model() + "/transformer", folder() + "/again"}).code, 2);
}

// What a first run keeps of clips from files, a second one uses, to the bit; damaged and unwritable files end no run.
TEST_F(TrainCommand, KeepsLatentsAndTextStates) {
    NEEDS_FFMPEG;
    std::string clips = folder() + "/clips", cache = folder() + "/kept";
    ASSERT_EQ(sana_run({"--quiet", "data", "draw", "--out", clips, "--count", "2", "--format", "y4m",
                        "--frames", "5", "--height", "64", "--width", "64"})
                  .code,
              0);
    auto train = [&](const std::string& out, const std::string& where, std::vector<std::string> more = {}) {
        more.insert(more.end(), {"--steps", "3", "--data", clips, "--cache", where, "--batch", "2"});
        Outcome o = run("dit", out, more, false);
        EXPECT_EQ(o.code, 0) << o.err;
        return o.err;
    };
    auto weights = [&](const std::string& out) {
        return read_folder(folder() + "/" + out + "/checkpoints/step-00000003", "state").tensors;
    };
    auto expect_equal = [&](const std::string& a, const std::string& b) {
        TensorMap x = weights(a), y = weights(b);
        ASSERT_EQ(x.size(), y.size());
        for (const auto& [name, tensor] : x) EXPECT_EQ(max_abs_difference(tensor, y.at(name)), 0) << name;
    };
    std::string first = train("kept-1", cache);
    auto files = [&] {
        std::vector<fs::path> out;
        for (const auto& entry : fs::recursive_directory_iterator(cache))
            if (entry.is_regular_file()) out.push_back(entry.path());
        return out;
    };
    EXPECT_GE(files().size(), 4u);  // two clips, at least two captions
    EXPECT_NE(train("kept-2", cache).find("latents: 6 kept ones used, 0 made"), std::string::npos);
    expect_equal("kept-1", "kept-2");
    for (const fs::path& file : files()) fs::resize_file(file, 30);
    EXPECT_NE(train("kept-3", cache).find("made anew"), std::string::npos);
    expect_equal("kept-1", "kept-3");
    EXPECT_NE(train("kept-4", clips + "/clip_00001.y4m/kept").find("nothing more is kept"),
              std::string::npos);
    expect_equal("kept-1", "kept-4");
    // Another autoencoder, other latents.
    std::string other = folder() + "/other";
    fs::copy(model(), other, fs::copy_options::recursive);
    fs::remove_all(other + "/vae");
    ASSERT_EQ(sana_run({"--quiet", "init", "--preset", "tiny", "--seed", "5", "--out", other + "-5"}).code,
              0);
    fs::rename(other + "-5/vae", other + "/vae");
    std::string changed = train("kept-5", cache, {"--model", other});
    EXPECT_NE(changed.find("latents: 4 kept ones used, 2 made"), std::string::npos) << changed;
    // A run goes on with what it began with.
    EXPECT_EQ(
        run("dit", "kept-1", {"--steps", "4", "--data", clips, "--batch", "2", "--cache", "none", "--resume"})
            .code,
        2);
}

TEST_F(TrainCommand, BadInput) {
    EXPECT_EQ(run("vae", "bad1", {"--stage", "sound"}).code, 2);
    EXPECT_EQ(run("vae", "bad2", {"--frames", "4"}).code, 2);  // not 1 + 4k
    EXPECT_EQ(run("dit", "bad3", {"--lora-rank", "2", "--lora-layers", "no.such"}).code, 2);
    EXPECT_EQ(run("vae", "bad4", {"--data", "/no/such/place"}).code, 2);
    std::ofstream(folder() + "/typo.toml") << "stepz = 3\n";
    Outcome typo = sana_run({"train", folder() + "/typo.toml"});
    EXPECT_EQ(typo.code, 2);
    EXPECT_NE(typo.err.find("stepz"), std::string::npos) << typo.err;
    EXPECT_EQ(sana_run({"train", "--dump-config"}).code, 0);
}
