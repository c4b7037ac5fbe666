// Tiny models and data for tests of training.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "../device.h"
#include "core/parallel.h"
#include "io/safetensors.h"
#include "ops/pointwise.h"
#include "text/tokenizer.h"
#include "train/flow.h"
#include "train/trainer.h"
#include "train/vae_objective.h"

namespace sana::test {

// A bright square on a dark field, moving with its number; pictures have one frame. Of several sizes each batch has one.
class Squares : public Source {
public:
    explicit Squares(Bucket bucket, int64_t batch = 2) : Squares(std::vector<Bucket>{bucket}, batch) {}
    explicit Squares(std::vector<Bucket> buckets, int64_t batch = 2)
        : buckets_(std::move(buckets)), batch_(batch) {}
    int64_t batches_per_epoch() const override { return 0; }
    Batch batch(int64_t position) const override {
        Batch out;
        out.bucket = buckets_[static_cast<size_t>(position + position / 3) % buckets_.size()];
        for (int64_t i = 0; i < batch_; ++i) {
            Sample s;
            s.index = position * batch_ + i;
            s.id = join("square ", s.index);
            s.caption = s.index % 2 == 0 ? "left" : "right";
            out.samples.push_back(s);
        }
        return out;
    }
    Tensor video(const Sample& sample, const Bucket& k) const override {
        Tensor v = zeros({k.frames, k.height, k.width, 3}, DType::U8);
        for (int64_t i = 0; i < v.numel(); ++i) {
            int64_t c = i % 3, w = i / 3 % k.width, h = i / 3 / k.width % k.height,
                    t = i / 3 / k.width / k.height;
            int64_t shift = (sample.index % 2 == 0 ? k.frames - 1 - t : t) + sample.index / 2 % 3;
            bool inside = w >= shift && w < shift + 6 && h >= 4 && h < 11;
            v.data<uint8_t>()[i] = static_cast<uint8_t>(inside ? 220 - 60 * c : 30 + 20 * c);
        }
        return v;
    }
    std::string fingerprint() const override {
        std::string text = join("squares ", batch_);
        for (const Bucket& b : buckets_) text += join(" ", b.frames, "x", b.height, "x", b.width);
        return text;
    }

private:
    std::vector<Bucket> buckets_;
    int64_t batch_;
};

inline WanVaeConfig tiny_vae_config() {
    WanVaeConfig c;
    c.base = c.decoder_base = 6;
    c.latent_channels = 4;
    c.multipliers = {1, 2};
    c.residual_blocks = 1;
    c.temporal_downsample = {true};
    c.latents_mean = {0, 0, 0, 0};
    c.latents_std = {1, 1, 1, 1};
    return c;
}

inline DiTConfig tiny_dit_config() {
    DiTConfig c;
    c.in_channels = c.out_channels = 4;
    c.heads = c.cross_heads = 2;
    c.head_dim = c.cross_head_dim = 12;
    c.layers = 2;
    c.caption_channels = 16;
    c.patch = {1, 2, 2};
    return c;
}

inline Gemma2Config tiny_text_config() {
    Gemma2Config c;
    c.vocabulary = 32;
    c.hidden = 16;
    c.inner = 24;
    c.layers = 2;
    c.heads = 2;
    c.kv_heads = 1;
    c.head_dim = 8;
    c.query_scalar = 8;
    c.sliding = {true, false};
    return c;
}

inline Tokenizer letters() {
    nlohmann::json file = {
        {"model",
         {{"type", "BPE"}, {"vocab", {{"<pad>", 0}, {"<bos>", 2}}}, {"merges", nlohmann::json::array()}}},
        {"post_processor",
         {{"type", "TemplateProcessing"},
          {"single", {{{"SpecialToken", {{"id", "<bos>"}}}}, {{"Sequence", {{"id", "A"}}}}}}}}};
    for (int i = 0; i < 26; ++i) file["model"]["vocab"][std::string(1, static_cast<char>('a' + i))] = 4 + i;
    return Tokenizer::parse(file.dump(), "letters");
}

inline constexpr Bucket kClip{5, 8, 16}, kPicture{1, 8, 16};

template <class M>
void draw_model(M& model, uint64_t seed) {
    draw(parameters(model), seed, DType::F32, test_device());
}

inline SlabOptions here(bool average = false, Optimizer optimizer = Optimizer::adamw) {
    SlabOptions o;
    o.device = test_device();
    o.compute = test_device() == kCpu ? DType::F32 : DType::BF16;
    o.average = average;
    o.optimizer = optimizer;
    return o;
}

// All parts of text to video, tiny.
struct Flow {
    DiT dit{tiny_dit_config()};
    Gemma2 text{tiny_text_config()};
    WanVae vae{tiny_vae_config(), VaeParts::both};
    Tokenizer tokenizer = letters();
    Flow() {
        draw_model(dit, 1);
        draw_model(text, 2);
        draw_model(vae, 3);
    }
    FlowObjective objective(FlowOptions o = {}, bool train_text = true) {
        auto latents = [this](const Batch& batch, const Draws&) {
            NoTape frozen;
            return vae.encode(video_tensor(batch, vae.dtype(), vae.device())).mean.to(DType::F32);
        };
        return FlowObjective(dit, text, tokenizer, latents, o, train_text, 16);
    }
};

// A folder of its own, removed at the end.
struct Folder {
    std::string path;
    explicit Folder(const std::string& name)
        : path((std::filesystem::temp_directory_path() /
                join("sana-train-", name, "-", static_cast<int64_t>(getpid())))
                   .string()) {
        std::filesystem::remove_all(path);
        std::filesystem::create_directories(path);
    }
    ~Folder() { std::filesystem::remove_all(path); }
};

inline TrainOptions options(const std::string& folder, int64_t steps) {
    TrainOptions o;
    o.folder = folder;
    o.steps = steps;
    o.warmup = 3;
    o.step.rate = 3e-3;
    o.step.clip = 1;
    o.step.epsilon = 1e-8;
    o.slab = here(true);
    o.log_every = 1;
    o.checkpoint_every = 1000;
    o.hold_out_every = 1000;
    return o;
}

inline void expect_equal_checkpoints(const std::string& a, const std::string& b) {
    TensorMap x = read_folder(a, "state").tensors, y = read_folder(b, "state").tensors;
    ASSERT_EQ(x.size(), y.size());
    ASSERT_FALSE(x.empty());
    for (const auto& [name, tensor] : x) {
        ASSERT_EQ(y.count(name), 1u) << name;
        EXPECT_EQ(max_abs_difference(tensor, y.at(name)), 0) << name;
    }
}

}  // namespace sana::test
