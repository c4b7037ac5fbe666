// Batches of several sizes in one run: clips of different lengths and aspects, and pictures.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "run.h"

using namespace sana;
using namespace sana::test;

namespace {

const std::vector<Bucket> kSizes = {{5, 8, 16}, {3, 16, 8}, {9, 12, 12}};

// Batches of several sizes, and of pictures in these sizes.
TrainResult train_sizes(bool flow, const TrainOptions& o) {
    std::vector<Bucket> flat = kSizes;
    for (Bucket& bucket : flat) bucket.frames = 1;
    Squares clips(kSizes), pictures(flat), held_out(kSizes, 1);
    TrainData data{.videos = &clips, .pictures = &pictures, .held_out = &held_out};
    if (flow) {
        Flow parts;
        FlowObjective objective = parts.objective({.image_to_video = 0.5});
        return train(objective, data, o, {});
    }
    WanVae vae(tiny_vae_config(), VaeParts::both);
    draw_model(vae, 1);
    VaeObjective objective(vae, {});
    return train(objective, data, o, {});
}

std::map<int64_t, nlohmann::json> recorded_steps(const std::string& folder) {
    std::map<int64_t, nlohmann::json> out;
    std::ifstream lines(folder + "/metrics.jsonl");
    for (std::string line; std::getline(lines, line);) {
        auto json = nlohmann::json::parse(line);
        if (json.contains("loss")) out[json["step"].get<int64_t>()] = json;
    }
    return out;
}

}  // namespace

TEST(Trainer, BatchesOfSeveralSizesResumeBitForBit) {
    for (bool flow : {false, true}) {
        SCOPED_TRACE(flow ? "flow" : "vae");
        Folder straight("sizes"), parts("size-parts");
        TrainOptions o = options(straight.path, 9);
        o.accumulation = 2;
        o.image_interval = 3;
        TrainResult whole = train_sizes(flow, o);
        EXPECT_TRUE(std::isfinite(whole.held_out));
        o.folder = parts.path;
        for (int64_t steps : {4, 5, 9}) {
            o.steps = steps;
            o.resume = steps > 4;
            TrainResult part = train_sizes(flow, o);
            if (steps == 9) expect_equal_checkpoints(part.checkpoint, whole.checkpoint);
        }
        // Pictures do not move; every other part of the loss is there in every step.
        auto steps = recorded_steps(straight.path);
        ASSERT_EQ(steps.size(), 9u);
        for (const auto& [step, line] : steps) {
            if (flow) continue;
            EXPECT_EQ(line.contains("motion"), step != 4 && step != 7) << "step " << step;
            EXPECT_TRUE(line.contains("absolute") && line.contains("kl")) << "step " << step;
        }
        auto resumed = recorded_steps(parts.path);
        for (const auto& [step, line] : steps)
            for (const auto& [name, value] : line.items()) {
                if (name == "seconds" || name == "time") continue;
                EXPECT_EQ(resumed[step][name], value) << "step " << step << ", " << name;
            }
    }
}
