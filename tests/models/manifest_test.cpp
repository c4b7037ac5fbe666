// The released sizes: every tensor's name and shape, without a single weight in memory.
#include <fstream>
#include <nlohmann/json.hpp>

#include "../golden.h"
#include "models/dit/dit.h"
#include "models/gemma2/gemma2.h"
#include "models/ltx2_vae/ltx2_vae.h"
#include "models/wan_vae/wan_vae.h"

using namespace sana;
using namespace sana::test;

namespace {

nlohmann::json manifest() {
    std::ifstream in(golden_folder() + "/manifest.json");
    EXPECT_TRUE(in.good());
    return nlohmann::json::parse(in);
}

void expect_layout(const nlohmann::json& model, const std::vector<NamedParameter>& list,
                   const CheckpointNames& names) {
    EXPECT_EQ(count(list), model.at("params").get<int64_t>());
    auto layout = checkpoint_layout(list, names);
    EXPECT_EQ(layout.size(), model.at("tensors").size());
    for (const auto& [key, shape] : layout) {
        ASSERT_TRUE(model.at("tensors").contains(key)) << key;
        EXPECT_EQ(model.at("tensors").at(key).get<std::vector<int64_t>>(),
                  std::vector<int64_t>(shape.begin(), shape.end()))
            << key;
    }
}

}  // namespace

TEST(ManifestGolden, Transformers) {
    nlohmann::json all = manifest();
    for (const auto& [name, model] : all.items()) {
        if (!name.starts_with("sana_video") || !name.ends_with(".transformer")) continue;
        SCOPED_TRACE(name);
        DiTConfig config = DiTConfig::from_json(JsonConfig(model.at("config").dump(), name));
        DiT dit(config);
        expect_layout(model, parameters(dit), dit_diffusers_names(config));
        // What we write as config.json says the same.
        DiTConfig again = DiTConfig::from_json(JsonConfig(config.to_json(), name));
        EXPECT_EQ(again.inner(), config.inner());
        EXPECT_EQ(again.sample_size, config.sample_size);
    }
}

TEST(ManifestGolden, Autoencoders) {
    nlohmann::json all = manifest();
    WanVaeConfig wan = WanVaeConfig::from_json(JsonConfig(all.at("wan.vae").at("config").dump(), "wan"));
    WanVae wan_vae(wan, VaeParts::both);
    expect_layout(all.at("wan.vae"), parameters(wan_vae), wan_vae_names(VaeParts::both));
    Ltx2VaeConfig ltx = Ltx2VaeConfig::from_json(JsonConfig(all.at("ltx2.vae").at("config").dump(), "ltx2"));
    Ltx2Vae ltx_vae(ltx, VaeParts::both);
    auto list = parameters(ltx_vae);
    auto layout = checkpoint_layout(list, ltx2_vae_names(VaeParts::both));
    // The manifest counts learned parameters; the two vectors of statistics are buffers of the file.
    for (const auto& [key, shape] : layout) {
        if (key == "latents_mean" || key == "latents_std") continue;
        ASSERT_TRUE(all.at("ltx2.vae").at("tensors").contains(key)) << key;
        EXPECT_EQ(all.at("ltx2.vae").at("tensors").at(key).get<std::vector<int64_t>>(),
                  std::vector<int64_t>(shape.begin(), shape.end()))
            << key;
    }
    for (const auto& [key, shape] : all.at("ltx2.vae").at("tensors").items()) {
        EXPECT_TRUE(std::any_of(layout.begin(), layout.end(), [&](auto& entry) {
            return entry.first == key;
        })) << key;
    }
}

TEST(ManifestGolden, TextEncoder) {
    nlohmann::json model = manifest().at("gemma2_2b.text_encoder");
    Gemma2 gemma(Gemma2Config::from_json(JsonConfig(model.at("config").dump(), "gemma2")));
    expect_layout(model, parameters(gemma), gemma2_names({}));
}
