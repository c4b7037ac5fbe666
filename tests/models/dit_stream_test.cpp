// The transformer as a block-causal stream: constant-size state, chunk after chunk (NVlabs/Sana, LongSANA).
#include <nlohmann/json.hpp>

#include "../golden.h"
#include "io/checkpoint.h"
#include "models/dit/dit.h"
#include "ops/layout.h"

using namespace sana;
using namespace sana::test;

namespace {

constexpr double kFp32 = 2e-5;  // goldens.md

// The original's config has names of its own.
DiTConfig original_config(const nlohmann::json& c) {
    DiTConfig config;
    config.in_channels = config.out_channels = c.at("in_channels");
    config.heads = config.cross_heads = c.at("heads");
    config.head_dim = config.cross_head_dim = c.at("head_dim");
    config.layers = c.at("depth");
    config.caption_channels = c.at("caption_channels");
    config.mlp_ratio = c.at("mlp_ratio");
    auto patch = c.at("patch_size").get<std::vector<int64_t>>();
    config.patch = {patch[0], patch[1], patch[2]};
    config.attention_eps = 1e-8;
    config.cross_norm_eps = 1e-6;
    return config;
}

struct Call {
    double t;
    int64_t start, end;
    bool save;
};

struct Stream {
    Golden golden;
    DiTConfig config;
    DiT dit;
    TextContext text;
    std::vector<Call> calls;

    Stream(const std::string& path, DType dtype)
        : golden(path),
          config(original_config(nlohmann::json::parse(golden.file.metadata.at("config")))),
          dit(config) {
        load(parameters(dit), dit_official_names(), golden.under("w."), dtype, path, test_device());
        Tensor states = golden.at("in.text");  // [B,1,L,C]
        states = states.reshape({states.dim(0), states.dim(2), states.dim(3)});
        text = dit.prepare_text(on_test_device(states.to(dtype)),
                                on_test_device(golden.at("in.text_mask").to(DType::I32)));
        for (const auto& c : nlohmann::json::parse(golden.file.metadata.at("calls"))) {
            calls.push_back({c.at("t"), c.at("start"), c.at("end"), c.at("save")});
        }
    }

    Tensor run(const Call& call, const Tensor& latents, DiTStream& state) {
        EXPECT_EQ(state.frames, call.start);
        state.save = call.save;
        Tensor t = full({latents.dim(0)}, call.t, DType::F32, test_device());
        Tensor x = on_test_device(channels_last(latents).to(dit.dtype()));
        return channels_first(dit.forward(x, t, text, {}, &state)).to(kCpu);
    }
};

}  // namespace

TEST(DiTStreamGolden, EveryCallOfTheRollout) {
    for (const std::string& path : golden_files("long_stream")) {
        for (DType dtype : exact_dtypes()) {
            Stream stream(path, dtype);
            DiTStream state;
            for (size_t i = 0; i < stream.calls.size(); ++i) {
                char key[32];
                std::snprintf(key, sizeof key, "call.%02zu", i);
                Tensor out = stream.run(stream.calls[i], stream.golden.at(std::string(key) + ".in"), state);
                if (!expect_close(out, stream.golden.at(std::string(key) + ".out"), kFp32, key)) return;
            }
        }
    }
}

// The block-causal form over a whole clip is one saving pass a chunk, all at one timestep. The reference ran it at 500; the
// file does not record that.
TEST(DiTStreamGolden, BlockCausalForm) {
    for (const std::string& path : golden_files("long_stream")) {
        Stream stream(path, DType::F32);
        Tensor clip = stream.golden.at("chunk_causal.in");
        std::vector<int64_t> starts = to_vector<int64_t>(stream.golden.at("chunk_causal.index"));
        starts.push_back(clip.dim(2));
        DiTStream state;
        std::vector<Tensor> parts;
        for (size_t i = 0; i + 1 < starts.size(); ++i) {
            Call call{500, starts[i], starts[i + 1], true};
            parts.push_back(stream.run(call, slice(clip, 2, call.start, call.end - call.start), state));
        }
        expect_close(concat(parts, 2), stream.golden.at("chunk_causal.out"), kFp32, "chunk_causal.out");
    }
}

// The official file holds the same weights as the reference file: bit for bit in fp32, rounded in bf16.
TEST(OfficialCheckpointGolden, HoldsTheWeightsOfTheStream) {
    Golden golden(golden_files("long_stream")[0]);
    TensorMap expected = golden.under("w.");
    for (const std::string& path : golden_files("sana_video_tiny", ".pth")) {
        Checkpoint file = read_checkpoint(path);
        DiTConfig config = infer_dit_config(
            file.tensors, original_config(nlohmann::json::parse(golden.file.metadata.at("config"))).head_dim,
            path);
        DiT dit(config);
        load(parameters(dit), dit_official_names(), file.tensors, std::nullopt, path, test_device());
        TensorMap saved = save(parameters(dit), dit_official_names());
        for (const auto& [key, tensor] : saved) {
            ASSERT_TRUE(expected.count(key) != 0) << key;
            EXPECT_EQ(max_abs_difference(tensor, expected.at(key).to(tensor.dtype())), 0.0)
                << path << ' ' << key;
        }
    }
}
