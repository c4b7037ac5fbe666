// Memory plans of the released models, and that what a plan cuts or streams changes nothing but rounding.
#include "pipeline/memory_plan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/random.h"
#include "device.h"
#include "pipeline/block_stream.h"
#include "pipeline/presets.h"

using namespace sana;

namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

MemoryPlan plan_of(const std::string& preset, const Shape& latents, int64_t budget, const Fp8Rule& fp8 = {}) {
    const Preset& p = find_preset(preset);
    Placement placement{.device = {DeviceType::cuda, 0},
                        .transformer = DType::BF16,
                        .vae = DType::BF16,
                        .fp8 = fp8,
                        .text = {}};
    return plan_memory({p.dit, p.text, p.vae, placement, latents}, budget);
}

const Shape k480p{1, 21, 60, 104, 16};

const PhaseMemory& phase(const MemoryPlan& plan, Phase wanted) {
    return *std::find_if(plan.phases.begin(), plan.phases.end(), [&](auto& m) { return m.phase == wanted; });
}

// A random transformer of a few blocks on the device, and a step's inputs.
struct Fixture {
    DiTConfig config = find_preset("tiny").dit;
    DiT dit;
    Device device = test_device();
    Tensor latents = on_test_device(randn_philox({2, 3, 8, 12, 8}, 2)),
           times = on_test_device(full({2}, 300, DType::F32)),
           states = on_test_device(randn_philox({2, 7, 64}, 3));

    explicit Fixture(int64_t layers, Device where) : config(with_layers(layers)), dit(config) {
        draw(parameters(dit), 1, DType::F32, where);
    }
    static DiTConfig with_layers(int64_t layers) {
        DiTConfig c = find_preset("tiny").dit;
        c.layers = layers;
        return c;
    }
    Tensor step() { return dit.forward(latents, times, dit.prepare_text(states, {})).to(kCpu); }
};

}  // namespace

TEST(MemoryPlan, AmountsAreRead) {
    EXPECT_EQ(parse_vram("auto"), 0);
    EXPECT_EQ(parse_vram("8G"), 8 * kGiB);
    EXPECT_EQ(parse_vram("7.5GiB"), 15 * kGiB / 2);
    EXPECT_EQ(parse_vram("6144M"), 6 * kGiB);
    for (const char* bad : {"", "8", "G", "8T", "8 G", "-8G", "nanG", "infG", "0.5G", "9999G", "8GB"})
        EXPECT_THROW(parse_vram(bad), InputError) << bad;
}

TEST(MemoryPlan, SmallerBudgetsCutMoreAndStayInside) {
    int64_t streamed_before = 0;
    for (double gib : {80.0, 24.0, 12.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.6}) {
        int64_t budget = static_cast<int64_t>(gib * static_cast<double>(kGiB));
        MemoryPlan plan = plan_of("sana-video-2b-480p", k480p, budget);
        SCOPED_TRACE(to_text(plan));
        EXPECT_LE(plan.peak(), budget);
        const PhaseMemory& dit = phase(plan, Phase::denoise);
        EXPECT_GE(dit.streamed, streamed_before);
        streamed_before = dit.streamed;
        EXPECT_EQ(plan.resident_blocks >= 0, dit.streamed > 0);
        EXPECT_EQ(dit.how.empty(), plan.samples == 0 && plan.wide_frames == 0 && dit.streamed == 0);
    }
    EXPECT_GT(streamed_before, 0);
    MemoryPlan large = plan_of("sana-video-2b-480p", k480p, 80 * kGiB);
    EXPECT_TRUE(phase(large, Phase::denoise).how.empty());
    EXPECT_EQ(to_text(large).find("streamed"), std::string::npos);
    // 2.0 G parameters in bf16, and activations of 0.29 GB a hidden tensor.
    EXPECT_NEAR(static_cast<double>(phase(large, Phase::denoise).weights) * 1e-9, 4.1, 0.1);
    EXPECT_LE(plan_of("sana-video-2b-720p", {1, 11, 22, 40, 128}, 8 * kGiB).peak(), 8 * kGiB);
    EXPECT_THROW(plan_of("sana-video-2b-480p", {1, 200, 120, 208, 16}, 2 * kGiB), InputError);
}

TEST(MemoryPlan, CutForwardPassesEqualWholeOnes) {
    Fixture f(3, test_device());
    Tensor whole = f.step();
    for (int64_t samples : {0, 1}) {
        for (int64_t frames : {0, 1, 2, 5}) {
            SCOPED_TRACE(join(samples, " samples, ", frames, " frames"));
            f.dit.execution.samples = samples;
            f.dit.execution.wide_frames = frames;
            // Products of other heights may add in another order.
            EXPECT_LT(relative_l2(f.step(), whole), 2e-6);
        }
    }
}

// Weights of fp8 count as such, and the layers that are kept as bf16.
TEST(MemoryPlan, EightBitWeightsLeaveRoomForMore) {
    auto weights = [](const Fp8Rule& fp8) {
        return phase(plan_of("sana-video-2b-480p", k480p, 80 * kGiB, fp8), Phase::denoise).weights;
    };
    Fp8Rule rule{dit_fp8_rule().layers, {}}, some = rule;
    some.keep = {"blocks.0.*"};
    // Nine tenths of the weights are factors of products and take half.
    EXPECT_NEAR(static_cast<double>(weights(rule)) / static_cast<double>(weights({})), 0.55, 0.03);
    EXPECT_GT(weights(some), weights(rule));
    // A budget in which bf16 has to stream blocks.
    int64_t tight = 4 * kGiB;
    EXPECT_LT(phase(plan_of("sana-video-2b-480p", k480p, tight, rule), Phase::denoise).streamed,
              phase(plan_of("sana-video-2b-480p", k480p, tight), Phase::denoise).streamed / 2);
}

TEST(MemoryPlan, StreamedBlocksGiveTheSameBits) {
    // The second case with blocks of different sizes.
    for (Fp8Rule rule : {Fp8Rule{}, Fp8Rule{dit_fp8_rule().layers, {"blocks.1.*", "blocks.4.ffn.*"}}}) {
        auto make = [&](Device where) {
            Fixture f(5, where);
            for (const NamedParameter& p : parameters(f.dit)) quantise(p, rule);
            return f;
        };
        Tensor whole = make(test_device()).step();
        for (size_t resident : {0, 3, 4, 9}) {
            SCOPED_TRACE(join(resident, " resident", rule.empty() ? "" : ", fp8"));
            Fixture f = make(kCpu);
            std::vector<std::vector<NamedParameter>> lists(5);
            for (NamedParameter& p : parameters(f.dit)) {
                if (p.name.starts_with("blocks.")) {
                    lists[static_cast<size_t>(p.name[7] - '0')].push_back(p);
                } else {
                    move(*p.parameter, f.device);
                }
            }
            int64_t bytes = 0;
            for (size_t i = resident; i < 5; ++i)
                bytes = std::max(bytes, BlockStream::bytes_of(lists[i], DType::F32, rule));
            BlockStream stream(std::move(lists), resident, f.device);
            EXPECT_EQ(stream.streamed(), 5 - std::min<size_t>(resident, 5));
            EXPECT_EQ(stream.block_bytes(), bytes);
            f.dit.execution.before_block = [&](size_t i) { stream.enter(i); };
            for (int pass = 0; pass < 2; ++pass) EXPECT_EQ(max_abs_difference(f.step(), whole), 0.0) << pass;
        }
    }
}

// The estimate against the allocator's own count, at a size where activations matter.
TEST(MemoryPlan, EstimateOfAStepIsWhatTheAllocatorSees) {
    Preset preset = find_preset("tiny");
    preset.dit.layers = 1;
    Device device = test_device();
    Placement placement{.device = device};
    Shape latents{1, 9, 64, 96, 8};
    VaeConfig vae = preset.vae;  // a small one, so that the transformer decides
    std::get<WanVaeConfig>(vae).decoder_base = 1;
    auto plan_for = [&](int64_t budget) {
        return plan_memory({preset.dit, preset.text, vae, placement, latents}, budget);
    };
    constexpr int64_t kWorkspace = int64_t{96} << 20;  // set aside for the products of a GPU
    int64_t whole = phase(plan_for(0), Phase::denoise).peak();
    for (int64_t budget : {whole, whole - 1, kWorkspace + (whole - kWorkspace) * 3 / 4}) {
        MemoryPlan plan = plan_for(budget);
        SCOPED_TRACE(to_text(plan));
        release_cached(device);
        int64_t before = memory_statistics(device).active;
        DiT dit(preset.dit);
        draw(parameters(dit), 1, DType::F32, device);
        dit.execution.samples = plan.samples;
        dit.execution.wide_frames = plan.wide_frames;
        TextContext text = dit.prepare_text(on_test_device(randn_philox({2, 300, 64}, 3)), {});
        Tensor clip = on_test_device(randn_philox({1, 9, 64, 96, 8}, 2)),
               times = on_test_device(full({1}, 300, DType::F32));
        release_cached(device);
        reset_peak(device);
        dit.forward(clip, times, text);
        double taken = static_cast<double>(memory_statistics(device).peak_taken - before),
               told = static_cast<double>(phase(plan, Phase::denoise).peak() - kWorkspace);
        EXPECT_LE(taken, told + kWorkspace);
        // The plan counts a block of each size as if none served two purposes.
        EXPECT_LT(told, 1.5 * taken);
    }
}
