// Folders of safetensors: shards, index, variants.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "files.h"
#include "io/safetensors.h"
#include "io/text_file.h"

using namespace sana;
using namespace sana::test;
using nlohmann::json;

namespace {

constexpr const char* kBase = "diffusion_pytorch_model";

TensorMap numbered(int n) {
    TensorMap tensors;
    for (int i = 0; i < n; ++i) tensors["w." + std::to_string(i)] = full({10}, i, DType::F32);  // 40 bytes
    return tensors;
}

std::set<std::string> files_of(const std::string& folder) {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
        names.insert(entry.path().filename().string());
    return names;
}

void expect_words(const std::string& message, const std::vector<std::string>& words) {
    for (const std::string& word : words) EXPECT_NE(message.find(word), std::string::npos) << message;
}

float first(const Checkpoint& checkpoint) { return checkpoint.tensors.begin()->second.data<float>()[0]; }

TEST(Folder, OneFileWhenItFits) {
    std::string folder = fresh_folder() + "/made/here";
    write_sharded(folder, kBase, numbered(5), 200, {{"k", "v"}});
    EXPECT_EQ(files_of(folder), (std::set<std::string>{"diffusion_pytorch_model.safetensors"}));
    Checkpoint checkpoint = read_folder(folder, kBase);
    EXPECT_TRUE(same_tensors(numbered(5), checkpoint.tensors));
    EXPECT_EQ(checkpoint.metadata.at("k"), "v");
}

TEST(Folder, ShardsHoldAtMostTheirSize) {
    std::string folder = fresh_folder();
    TensorMap tensors = numbered(7);
    tensors["large"] = full({1000}, 9, DType::F32);
    write_sharded(folder, kBase, tensors, 100);
    EXPECT_EQ(files_of(folder), (std::set<std::string>{"diffusion_pytorch_model-00001-of-00005.safetensors",
                                                       "diffusion_pytorch_model-00002-of-00005.safetensors",
                                                       "diffusion_pytorch_model-00003-of-00005.safetensors",
                                                       "diffusion_pytorch_model-00004-of-00005.safetensors",
                                                       "diffusion_pytorch_model-00005-of-00005.safetensors",
                                                       "diffusion_pytorch_model.safetensors.index.json"}));
    Checkpoint checkpoint = read_folder(folder, kBase);
    EXPECT_TRUE(same_tensors(tensors, checkpoint.tensors));
    json index = json::parse(read_json_text(folder + "/diffusion_pytorch_model.safetensors.index.json"));
    EXPECT_EQ(index["metadata"]["total_size"], 7 * 40 + 4000);
    for (const auto& [name, file] : checkpoint.files) {
        EXPECT_EQ(folder + "/" + index["weight_map"][name].get<std::string>(), file);
        EXPECT_TRUE(name == "large" || std::filesystem::file_size(file) < 8 + 400 + 100) << file;
    }
}

TEST(Folder, AnEarlierCheckpointIsReplaced) {
    std::string folder = fresh_folder();
    write_text_file(folder + "/config.json", "{}");
    write_bytes(folder + "/other-00001-of-00009.safetensors", "not ours");
    write_sharded(folder, kBase, numbered(3), 1000);
    write_sharded(folder, kBase, numbered(6), 100);
    EXPECT_EQ(read_folder(folder, kBase).tensors.size(), 6);
    write_sharded(folder, kBase, numbered(4), 100);
    EXPECT_EQ(read_folder(folder, kBase).tensors.size(), 4);
    write_sharded(folder, kBase, numbered(2), 1000);
    EXPECT_EQ(files_of(folder), (std::set<std::string>{"config.json", "other-00001-of-00009.safetensors",
                                                       "diffusion_pytorch_model.safetensors"}));
}

TEST(Folder, VariantsByPreference) {
    std::string folder = fresh_folder();
    auto put = [&](const std::string& name, float value) {
        write_safetensors(folder + "/" + name, {{"w", full({1}, value, DType::F32)}});
    };
    put("diffusion_pytorch_model.ema.safetensors", 1);
    EXPECT_EQ(first(read_folder(folder, kBase)), 1);
    put("diffusion_pytorch_model.half.safetensors", 2);
    expect_words(input_error([&] { read_folder(folder, kBase); }), {"several variants", ".ema.", ".half."});
    put("diffusion_pytorch_model.fp16.safetensors", 3);
    EXPECT_EQ(first(read_folder(folder, kBase)), 3);
    put("diffusion_pytorch_model.bf16-00001-of-00001.safetensors", 4);
    write_text_file(folder + "/diffusion_pytorch_model.safetensors.index.bf16.json",
                    R"({"weight_map": {"w": "diffusion_pytorch_model.bf16-00001-of-00001.safetensors"}})");
    EXPECT_EQ(first(read_folder(folder, kBase)), 4);
    put("diffusion_pytorch_model.safetensors", 5);
    EXPECT_EQ(first(read_folder(folder, kBase)), 5);
}

TEST(Folder, MissingParts) {
    std::string folder = fresh_folder();
    expect_words(input_error([&] { read_folder(folder, kBase); }),
                 {folder, "no diffusion_pytorch_model.safetensors", "nothing"});
    expect_words(input_error([&] { read_folder(folder + "/none", kBase); }), {"no such folder"});
    write_sharded(folder, kBase, numbered(6), 80);
    std::string second = folder + "/diffusion_pytorch_model-00002-of-00003.safetensors";
    std::string index = folder + "/diffusion_pytorch_model.safetensors.index.json";
    std::string shard = read_bytes(second), good_index = read_bytes(index);
    std::filesystem::remove(second);
    expect_words(input_error([&] { read_folder(folder, kBase); }),
                 {"1 of the 3", "-00002-of-00003.safetensors"});
    expect_words(input_error([&] { read_folder(second, kBase); }), {"no such folder"});

    write_safetensors(second, {{"w.2", full({10}, 2, DType::F32)}});
    expect_words(input_error([&] { read_folder(folder, kBase); }), {"\"w.3\"", "promises"});
    write_safetensors(second, {{"w.2", full({10}, 2, DType::F32)},
                               {"w.3", full({10}, 2, DType::F32)},
                               {"x", full({1}, 2, DType::F32)}});
    expect_words(input_error([&] { read_folder(folder, kBase); }), {"\"x\"", "is not in"});

    write_bytes(second, shard);
    EXPECT_TRUE(same_tensors(numbered(6), read_folder(folder, kBase).tensors));
    std::filesystem::remove(index);
    expect_words(input_error([&] { read_folder(folder, kBase); }), {"index.json", "download it too"});
    write_text_file(index, "{\"weight_map\": []}");
    expect_words(input_error([&] { read_folder(folder, kBase); }), {"weight_map"});
    write_text_file(index, "[]");
    expect_words(input_error([&] { read_folder(folder, kBase); }), {"weight_map"});
    write_text_file(index, "{\"weight_map\": {\"w\": 3}}");
    expect_words(input_error([&] { read_folder(folder, kBase); }), {"\"w\"", "text"});
    for (const char* escape : {"../x.safetensors", "/etc/passwd", "..", "", "a/b"}) {
        write_text_file(index, json{{"weight_map", {{"w", escape}}}}.dump());
        expect_words(input_error([&] { read_folder(folder, kBase); }), {"\"w\"", "plain file name"});
    }
}

TEST(Folder, SizesMustBePositive) {
    EXPECT_THROW(write_sharded(fresh_folder(), kBase, numbered(1), 0), InputError);
}

}  // namespace
