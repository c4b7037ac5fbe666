// Which optimiser moves what.
#include <gtest/gtest.h>

#include <cmath>

#include "ops/pointwise.h"
#include "run.h"
#include "train/prefetch.h"

using namespace sana;
using namespace sana::test;

// Muon moves every matrix inside blocks by itself, and AdamW everything else.
TEST(Slab, MuonTakesTheMatricesOfBlocks) {
    Flow flow;
    FlowObjective objective = flow.objective();
    Slab slab(objective.parameters(), here(false, Optimizer::muon));
    TensorMap state = slab.state(), before;
    for (const auto& [name, tensor] : state) before[name] = tensor.to(kCpu).clone();
    std::vector<std::string> matrices;
    for (const NamedParameter& p : slab.parameters()) {
        if (state.count("v." + p.name) == 0) matrices.push_back(p.name);
    }
    std::vector<std::string> expected;
    for (const char* block : {"transformer.blocks.0.", "transformer.blocks.1."}) {
        for (const char* layer : {"attention.qkv", "attention.out", "cross.q", "cross.kv", "cross.out",
                                  "ffn.inverted", "ffn.point", "ffn.temporal"})
            expected.push_back(join(block, layer, ".weight"));
    }
    // Keys and values of the text encoder are 8 wide.
    for (const char* block : {"text_encoder.layers.0.", "text_encoder.layers.1."}) {
        for (const char* layer : {"self_attn.q_proj", "self_attn.o_proj", "mlp.gate_up", "mlp.down_proj"})
            expected.push_back(join(block, layer, ".weight"));
    }
    EXPECT_EQ(matrices, expected);

    Batch batch = batch_with_pixels(Squares(kClip), 0);
    Tape tape;
    slab.require(tape);
    tape.backward(objective.losses(batch, {1, 0}).total, full({1}, 1, DType::F32, test_device()));
    slab.gather(slab.gradient(tape), 1);
    StepOptions o{.rate = 0.01, .epsilon = 1e-8, .decay = 0.1};
    slab.step(1, o, slab.norm());
    auto moved = [&](const std::string& name) {
        return combine({{1, state.at("weights." + name).to(kCpu)}, {-1, before.at("weights." + name)}});
    };
    // The first moment is the gradient, and its length goes out.
    for (const auto& [name, parts] : {std::pair{"transformer.blocks.1.attention.qkv.weight", int64_t{3}},
                                      {"transformer.blocks.0.cross.kv.weight", 2},
                                      {"transformer.blocks.1.ffn.temporal.weight", 1},
                                      {"text_encoder.layers.0.mlp.gate_up.weight", 2}}) {
        SCOPED_TRACE(name);
        Tensor g = state.at(join("m.", name)), w = before.at(join("weights.", name));
        int64_t rows = g.dim(0) / parts, cols = g.numel() / g.dim(0);
        Tensor O = orthogonalise(g.reshape({parts, rows, cols})).to(kCpu).reshape(w.shape());
        double scale = 0.2 * std::sqrt(static_cast<double>(std::max(rows, cols)));
        // 1e-4: weights of up to 1 move by 1e-3 or more, of which fp32 keeps that much. On CUDA products of one
        // matrix and of several may be summed in another order, in fp16.
        EXPECT_LE(relative_l2(moved(name), combine({{-o.rate * scale, O}, {-o.rate * o.decay, w}})),
                  test_device() == kCpu ? 1e-4 : 1e-2);
    }
    // A first step of AdamW's is at most the rate, and the decay of weights below 5.
    for (const char* name : {"transformer.patch_embed.weight", "transformer.blocks.0.modulation",
                             "text_encoder.layers.0.self_attn.k_proj.weight"}) {
        Tensor d = moved(name);
        EXPECT_GT(square_sum(d), 0) << name;
        EXPECT_LE(max_abs_difference(d, zeros(d.shape(), DType::F32)), 1.5 * o.rate) << name;
    }
}

TEST(Slab, MuonIsForTransformers) {
    WanVae vae(tiny_vae_config(), VaeParts::both);
    draw_model(vae, 1);
    EXPECT_THROW(Slab(parameters(vae), here(false, Optimizer::muon)), InputError);
}
