// The trainer: what it computes a loss of, that losses fall, and that a run that stops anywhere goes on bit for bit.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cmath>
#include <csignal>
#include <fstream>
#include <thread>

#include "../device.h"
#include "core/random.h"
#include "io/safetensors.h"
#include "io/text_file.h"
#include "ops/loss.h"
#include "ops/pointwise.h"
#include "run.h"
#include "train/metrics.h"
#include "train/prefetch.h"

using namespace sana;
using namespace sana::test;

namespace {

// A run of the autoencoder; what it saved.
TrainResult train_vae(TrainOptions o, const TrainHooks& hooks = {}) {
    WanVae vae(tiny_vae_config(), VaeParts::both);
    draw_model(vae, 1);
    VaeObjective objective(vae, {});
    Squares clips(kClip), pictures(kPicture), held_out(kClip, 1);
    return train(objective, {.videos = &clips, .pictures = &pictures, .held_out = &held_out}, o, hooks);
}

TrainResult train_flow(TrainOptions o, const TrainHooks& hooks = {}) {
    Flow flow;
    FlowObjective objective = flow.objective({.image_to_video = 0.5});
    Squares clips(kClip), held_out(kClip, 1);
    return train(objective, {.videos = &clips, .held_out = &held_out}, o, hooks);
}

std::string read(const std::string& path) { return read_text_file(path); }

}  // namespace

TEST(Flow, SigmasOfTheReference) {
    EXPECT_DOUBLE_EQ(flow_sigma(500, 3), 0.75);
    EXPECT_DOUBLE_EQ(flow_sigma(100, 3), 0.25);
    EXPECT_NEAR(flow_sigma(900, 3), 0.964286, 1e-6);
    EXPECT_DOUBLE_EQ(flow_sigma(0, 3), 0);
    EXPECT_NEAR(flow_sigma(999, 3), 0.99967, 1e-5);
}

// t = floor(1000 sigmoid(n)): half of the times are below 500, and 68.27 % between sigmoid(-1) and sigmoid(1).
TEST(Flow, TimesAreLogitNormal) {
    FlowOptions o{.drop_caption = 0.1};
    FlowBatch flow = draw_flow(o, {7, 3}, 20000, 1, 10);
    std::vector<bool> captions = dropped_captions(o, {7, 3}, 20000);
    double below = 0, middle = 0, dropped = 0, n = 20000;
    for (size_t i = 0; i < flow.sigma.size(); ++i) {
        double sigma = flow.sigma[i], s = sigma / (3 - 2 * sigma);
        below += s < 0.5 ? 1 : 0;
        middle += s > 0.26894 && s < 0.73106 ? 1 : 0;
        dropped += captions[i] ? 1 : 0;
        ASSERT_EQ(flow.times.data<float>()[i], std::floor(1000 * sigma));
    }
    // Three standard deviations of a share of 20000 draws are 0.011.
    EXPECT_NEAR(below / n, 0.5, 0.011);
    EXPECT_NEAR(middle / n, 0.6827, 0.011);
    EXPECT_NEAR(dropped / n, 0.1, 0.007);
}

TEST(Flow, AGivenFirstFrameIsCleanAndDoesNotCount) {
    FlowBatch flow = draw_flow({.image_to_video = 0.5}, {7, 3}, 40, 5, 10);
    ASSERT_EQ(flow.times.shape(), (Shape{40, 5}));
    int given = 0;
    double total = 0;
    for (int64_t b = 0; b < 40; ++b) {
        bool clean = flow.sigma[static_cast<size_t>(b * 5)] == 0;
        given += clean ? 1 : 0;
        const float *t = flow.times.data<float>() + b * 5, *w = flow.weight.data<float>() + b * 5;
        EXPECT_EQ(t[0], clean ? 0 : t[1]);
        EXPECT_EQ(t[1], t[4]);
        EXPECT_FLOAT_EQ(w[0], clean ? 0 : w[1]);
        for (int i = 0; i < 5; ++i) total += 10 * w[i];
    }
    EXPECT_GT(given, 8);
    EXPECT_LT(given, 32);
    EXPECT_NEAR(total, 1, 1e-5);
    EXPECT_EQ(draw_flow({.image_to_video = 1}, {7, 3}, 4, 1, 10).times.shape(), (Shape{4}));
}

TEST(Vae, RecordedHalvesAreTheUsualOnes) {
    WanVae vae(tiny_vae_config(), VaeParts::both);
    draw_model(vae, 1);
    Batch batch = batch_with_pixels(Squares({9, 16, 24}), 0);
    Tensor video = video_tensor(batch, DType::F32, test_device());
    VaeMoments expected = vae.encode(video), actual = encode_recorded(vae, video);
    EXPECT_LE(relative_l2(actual.mean.to(kCpu), expected.mean.to(kCpu)), 1e-5);
    EXPECT_LE(relative_l2(actual.logvar.to(kCpu), expected.logvar.to(kCpu)), 1e-5);
    Tensor clip = decode_recorded(vae, expected.mean).to(kCpu), usual = vae.decode(expected.mean).to(kCpu);
    EXPECT_LE(relative_l2(clamp(clip, -1, 1), usual), 1e-5);
}

TEST(Vae, BeginsWithANarrowPosterior) {
    WanVae vae(tiny_vae_config(), VaeParts::both);
    draw_model(vae, 1);
    Tensor video = video_tensor(batch_with_pixels(Squares({9, 16, 24}), 0), DType::F32, test_device());
    VaeMoments before = vae.encode(video);
    begin_narrow(vae);
    VaeMoments after = vae.encode(video);
    EXPECT_EQ(max_abs_difference(after.mean.to(kCpu), before.mean.to(kCpu)), 0);
    EXPECT_EQ(max_abs_difference(after.logvar.to(kCpu), full(after.logvar.shape(), -6, DType::F32)), 0);
}

TEST(Vae, HeldOutClipsAreJudgedInDecibels) {
    WanVae vae(tiny_vae_config(), VaeParts::both);
    draw_model(vae, 1);
    VaeObjective objective(vae, {});
    Batch batch = batch_with_pixels(Squares({5, 16, 24}), 3);
    Draws draws{1, 2};
    auto judged = objective.judge(objective.inputs(batch, objective.prepare(batch, draws), draws));
    Tensor video = video_tensor(batch, DType::F32, kCpu),
           clip = vae.decode(vae.encode(video.to(test_device())).mean).to(kCpu);
    double sum = 0;
    for (int64_t b = 0; b < 2; ++b) {
        double squares = 0, n = static_cast<double>(clip.numel() / 2);
        for (int64_t i = b * clip.numel() / 2; i < (b + 1) * clip.numel() / 2; ++i) {
            double d = clip.data<float>()[i] - video.data<float>()[i];
            squares += d * d;
        }
        sum += 10 * std::log10(4 * n / squares);
    }
    EXPECT_NEAR(judged.at("held_out_psnr"), sum / 2, 1e-3);  // fp32 against fp64 sums
    EXPECT_NEAR(judged.at("held_out"), item(objective.losses(batch, draws).total), 1e-6);
}

TEST(Vae, LossFallsAndTheModelIsWritten) {
    Folder folder("vae");
    TrainOptions o = options(folder.path, 40);
    std::vector<double> losses;
    TrainHooks hooks;
    hooks.progress = [&](const TrainProgress& p) { losses.push_back(p.loss); };
    TrainResult result = train_vae(o, hooks);
    EXPECT_LT(result.loss, 0.7 * losses[2]);
    EXPECT_TRUE(std::isfinite(result.held_out));
    WanVae again(tiny_vae_config(), VaeParts::both);
    EXPECT_NO_THROW(load(parameters(again), wan_vae_names(VaeParts::both),
                         read_checkpoint(result.model + "/vae").tensors, DType::F32, result.model));
}

TEST(Vae, TheDecoderAloneIsTrained) {
    Folder folder("decoder");
    TrainOptions o = options(folder.path, 40);
    WanVae vae(tiny_vae_config(), VaeParts::both);
    draw_model(vae, 1);
    TensorMap before = save(parameters(vae), wan_vae_names(VaeParts::both));
    for (auto& [name, value] : before) value = value.clone();
    freeze_encoder(vae, o.slab.compute);
    VaeObjective objective(vae, {.decoder_only = true});
    Squares clips(kClip), pictures(kPicture), held_out(kClip, 1);
    std::vector<double> losses;
    TrainHooks hooks;
    hooks.progress = [&](const TrainProgress& p) { losses.push_back(p.loss); };
    TrainResult result =
        train(objective, {.videos = &clips, .pictures = &pictures, .held_out = &held_out}, o, hooks);
    EXPECT_LT(result.loss, 0.8 * losses[2]);
    size_t same = 0, other = 0;
    for (const auto& [name, value] : read_checkpoint(result.model + "/vae").tensors) {
        bool encodes = name.starts_with("encoder.") || name.starts_with("quant_conv.");
        double moved =
            max_abs_difference(value.to(DType::F32), before.at(name).to(kCpu).to(DType::BF16).to(DType::F32));
        EXPECT_TRUE(!encodes || moved == 0) << name << ' ' << moved;
        (moved == 0 ? same : other) += 1;
    }
    EXPECT_GT(same, 10u);
    EXPECT_GT(other, 10u);
    EXPECT_EQ(read(result.model + "/vae/config.json"), tiny_vae_config().to_json());
}

TEST(Trainer, FlowLossFallsWithAllOptimisers) {
    for (Optimizer optimizer : {Optimizer::adamw, Optimizer::came, Optimizer::muon}) {
        SCOPED_TRACE(name_of(optimizer));
        Folder folder("flow");
        TrainOptions o = options(folder.path, 80);
        o.slab.optimizer = optimizer;
        o.step.rate = optimizer == Optimizer::came ? 1e-3 : 3e-3;
        std::vector<double> losses;
        TrainHooks hooks;
        hooks.progress = [&](const TrainProgress& p) { losses.push_back(p.loss); };
        train_flow(o, hooks);
        auto mean = [&](size_t from) {
            double sum = 0;
            for (size_t i = 0; i < 15; ++i) sum += losses[from + i] / 15;
            return sum;
        };
        EXPECT_LT(mean(65), 0.9 * mean(0));
    }
}

// Blocks that are computed again give the gradients that kept ones give.
TEST(Trainer, RecomputationChangesNothing) {
    Flow flow;
    FlowObjective objective = flow.objective();
    Slab slab(objective.parameters(), here());
    Batch batch = batch_with_pixels(Squares(kClip), 0);
    std::vector<Tensor> gradients;
    for (bool recompute : {true, false}) {
        flow.dit.recompute = recompute;
        Tape tape;
        slab.require(tape);
        Losses losses = objective.losses(batch, {1, 0});
        tape.backward(losses.total, full({1}, 1, DType::F32, test_device()));
        gradients.push_back(
            tape.gradient(flow.dit.blocks[0].attention.qkv.weight.value).to(DType::F32).to(kCpu));
    }
    EXPECT_EQ(max_abs_difference(gradients[0], gradients[1]), 0);
    EXPECT_GT(square_sum(gradients[0]), 0);
}

TEST(Trainer, ResumesBitForBit) {
    for (auto [flow, optimizer] :
         {std::pair{false, Optimizer::adamw}, {true, Optimizer::adamw}, {true, Optimizer::muon}}) {
        SCOPED_TRACE(join(flow ? "flow " : "vae ", name_of(optimizer)));
        auto run = [flow](const TrainOptions& o) { return flow ? train_flow(o) : train_vae(o); };
        Folder straight("straight"), parts("parts");
        TrainOptions o = options(straight.path, 7);
        o.accumulation = 2;
        o.slab.optimizer = optimizer;
        if (!flow) o.image_interval = 3;
        TrainResult whole = run(o);
        o.folder = parts.path;
        o.steps = 3;
        run(o);
        o.resume = true;
        o.steps = 4;
        run(o);
        o.steps = 7;
        expect_equal_checkpoints(run(o).checkpoint, whole.checkpoint);
        // The record has every step once.
        std::ifstream lines(parts.path + "/metrics.jsonl");
        std::map<int64_t, int> seen;
        for (std::string line; std::getline(lines, line);) {
            auto json = nlohmann::json::parse(line);
            if (json.contains("loss")) seen[json["step"].get<int64_t>()] += 1;
        }
        EXPECT_EQ(seen.size(), 7u);
        for (const auto& [step, times] : seen) EXPECT_EQ(times, 1) << "step " << step;
    }
}

// kill -9 while the run computes or writes; what is resumed ends where an uninterrupted run ends.
TEST(Trainer, SurvivesBeingKilled) {
    if (test_device() != kCpu) GTEST_SKIP() << ("a process that has used a GPU cannot be forked");
    int before = threads();
    set_threads(1);  // a forked process has none of the threads of its parent
    Folder straight("unkilled"), killed("killed");
    TrainOptions o = options(straight.path, 12);
    o.checkpoint_every = 1;
    TrainResult whole = train_vae(o);
    o.folder = killed.path;
    o.resume = true;
    for (int attempt = 0; attempt < 4; ++attempt) {
        pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            train_vae(o);
            _exit(0);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(60 + 37 * attempt));
        kill(child, SIGKILL);
        int status = 0;
        waitpid(child, &status, 0);
    }
    TrainResult rest = train_vae(o);
    EXPECT_EQ(rest.step, 12);
    expect_equal_checkpoints(rest.checkpoint, whole.checkpoint);
    set_threads(before);
}

TEST(Trainer, AHalfWrittenCheckpointIsNeverLoaded) {
    Folder folder("half");
    TrainOptions o = options(folder.path, 2);
    train_vae(o);
    make_folders(folder.path + "/checkpoints/step-00000009.partial");
    o.resume = true;
    o.steps = 3;
    EXPECT_EQ(train_vae(o).step, 3);
}

// A disk that is full when a checkpoint is written ends the run with the one before it whole; later it goes on from there.
TEST(Trainer, AFullDiskHarmsNoCheckpoint) {
    Folder straight("roomy"), folder("full");
    TrainOptions o = options(straight.path, 4);
    o.checkpoint_every = 1;
    TrainResult whole = train_vae(o);
    o.folder = folder.path;
    // A limit on the size of files stands for the disk.
    auto handler = std::signal(SIGXFSZ, SIG_IGN);
    rlimit before{};
    getrlimit(RLIMIT_FSIZE, &before);
    TrainHooks hooks;
    hooks.progress = [&](const TrainProgress& p) {
        rlimit small{20000, before.rlim_max};
        if (p.step == 2) setrlimit(RLIMIT_FSIZE, &small);
    };
    std::string text;
    try {
        train_vae(o, hooks);
    } catch (const InputError& error) {
        text = error.what();
    }
    setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
    EXPECT_NE(text.find("step-00000002"), std::string::npos) << text;
    EXPECT_NE(text.find("the last good checkpoint is"), std::string::npos) << text;
    EXPECT_FALSE(std::filesystem::exists(folder.path + "/checkpoints/step-00000002.partial"));
    o.resume = true;
    TrainResult rest = train_vae(o);
    EXPECT_EQ(rest.step, 4);
    expect_equal_checkpoints(rest.checkpoint, whole.checkpoint);
}

TEST(Trainer, RefusesToMixRuns) {
    Folder folder("mix");
    TrainOptions o = options(folder.path, 1);
    train_vae(o);
    EXPECT_THROW(train_vae(o), InputError);  // a second run in the same folder
    o.resume = true;
    o.steps = 2;
    o.seed = 5;
    EXPECT_THROW(train_vae(o), InputError);
    o.seed = 0;
    EXPECT_THROW(train_flow(o), InputError);
}

TEST(Trainer, StopsAtALossThatIsNotFinite) {
    Folder folder("nan");
    Flow flow;
    auto latents = [&](const Batch& batch, const Draws&) {
        NoTape frozen;
        return flow.vae.encode(video_tensor(batch, DType::F32, test_device())).mean;
    };
    FlowObjective objective(flow.dit, flow.text, flow.tokenizer, latents, {}, true, 16);
    Squares clips(kClip);
    TrainOptions o = options(folder.path, 5);
    o.checkpoint_every = 1;
    // Before the third step a weight of the second block is spoilt.
    TrainHooks hooks;
    hooks.progress = [&](const TrainProgress& p) {
        Tensor bad = flow.dit.blocks[1].attention.out.weight.value;
        if (p.step == 2) copy(full(bad.shape(), NAN, bad.dtype(), bad.device()), bad);
    };
    try {
        train(objective, {.videos = &clips}, o, hooks);
        FAIL() << "nothing was noticed";
    } catch (const Error& error) {
        std::string text = error.what();
        EXPECT_NE(text.find("step 3"), std::string::npos) << text;
        EXPECT_NE(text.find("blocks.1"), std::string::npos) << text;
        EXPECT_NE(text.find("checkpoints/step-00000002"), std::string::npos) << text;
    }
}

TEST(Trainer, RateWarmsUpAndFalls) {
    TrainOptions o;
    o.steps = 110;
    o.warmup = 10;
    o.step.rate = 1;
    EXPECT_DOUBLE_EQ(rate_at(o, 1), 0.1);
    EXPECT_DOUBLE_EQ(rate_at(o, 10), 1);
    EXPECT_DOUBLE_EQ(rate_at(o, 100), 1);
    o.schedule = RateSchedule::cosine;
    EXPECT_NEAR(rate_at(o, 60), 0.55, 1e-12);
    EXPECT_NEAR(rate_at(o, 110), 0.1, 1e-12);
    o.schedule = RateSchedule::linear;
    EXPECT_NEAR(rate_at(o, 60), 0.5, 1e-12);
    EXPECT_NEAR(rate_at(o, 110), 0, 1e-12);
    EXPECT_DOUBLE_EQ(rate_at(o, 5), 0.5);
}

TEST(TensorBoard, RecordsCanBeRead) {
    EXPECT_EQ(crc32c("123456789", 9), 0xe3069283u);
    Folder folder("board");
    {
        TensorBoard board(folder.path, 1000);
        board.add(5, 1001, {{"loss", 0.5}});
    }
    std::string bytes;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path))
        bytes = read(entry.path().string());
    std::vector<std::string> events;
    for (size_t at = 0; at < bytes.size();) {
        uint64_t length = 0;
        std::memcpy(&length, bytes.data() + at, 8);
        auto stored = [&](size_t place) {
            uint32_t crc = 0;
            std::memcpy(&crc, bytes.data() + place, 4);
            crc -= 0xa282ead8u;
            return (crc >> 17) | (crc << 15);
        };
        ASSERT_LE(at + 16 + length, bytes.size());
        EXPECT_EQ(stored(at + 8), crc32c(bytes.data() + at, 8));
        events.push_back(bytes.substr(at + 12, length));
        EXPECT_EQ(stored(at + 12 + length), crc32c(events.back().data(), length));
        at += 16 + length;
    }
    ASSERT_EQ(events.size(), 2u);
    EXPECT_NE(events[0].find("brain.Event:2"), std::string::npos);
    // step 5; summary { value { tag "loss" simple_value 0.5 } }
    EXPECT_EQ(events[1].substr(9),
              std::string("\x10\x05\x2a\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\x00\x3f", 17));
}

// Two processes with a batch each take the steps of one with two.
TEST(Trainer, ProcessesTogetherTakeTheSameSteps) {
    if (test_device() != kCpu) GTEST_SKIP() << ("a process that has used a GPU cannot be forked");
    int before = threads();
    set_threads(1);  // a forked process has none of the threads of its parent
    for (Optimizer optimizer : {Optimizer::adamw, Optimizer::muon}) {
        SCOPED_TRACE(name_of(optimizer));
        bool flow = optimizer == Optimizer::muon;
        auto run = [flow](const TrainOptions& o) { return flow ? train_flow(o) : train_vae(o); };
        Folder alone("alone"), together("together");
        TrainOptions o = options(alone.path, 5);
        o.slab.optimizer = optimizer;
        o.accumulation = 2;
        if (!flow) o.image_interval = 2;
        TrainResult whole = run(o);
        o.folder = together.path;
        o.accumulation = 1;
        TrainResult last;
        for (int64_t steps : {3, 5}) {  // resumed on the way
            Group group(2, 4096);
            o.group = &group;
            o.steps = steps;
            o.resume = steps > 3;
            group.start();
            if (group.rank() > 0) {
                try {
                    run(o);
                } catch (const std::exception& error) {
                    std::fprintf(stderr, "%s\n", error.what());
                    _exit(1);
                }
                _exit(0);
            }
            last = run(o);
            EXPECT_NO_THROW(group.finish());
        }
        expect_equal_checkpoints(last.checkpoint, whole.checkpoint);
    }
    set_threads(before);
}
