// Safetensors files: what is written is read again, and files that lie are refused with the reason.
#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "files.h"

using namespace sana;
using namespace sana::test;
using nlohmann::json;

namespace {

std::string file_of(const std::string& header, const std::string& data) {
    uint64_t length = header.size();
    return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

json entry(const std::string& dtype, std::vector<uint64_t> shape, uint64_t begin, uint64_t end) {
    return {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {begin, end}}};
}

std::string error_of(const std::string& bytes) {
    std::string path = fresh_folder() + "/x.safetensors";
    write_bytes(path, bytes);
    std::string message = input_error([&] { read_safetensors(path); });
    EXPECT_NE(message.find(path), std::string::npos) << message;
    return message;
}

void expect_error(const std::string& bytes, const std::vector<std::string>& words) {
    std::string message = error_of(bytes);
    for (const std::string& word : words) EXPECT_NE(message.find(word), std::string::npos) << message;
}

TEST(Safetensors, RoundTripOfEveryDtype) {
    std::string path = fresh_folder() + "/x.safetensors";
    TensorMap tensors = assorted_tensors();
    write_safetensors(path, tensors, {{"note", "a \"b\"\n"}});
    Checkpoint checkpoint = read_safetensors(path);
    EXPECT_TRUE(same_tensors(tensors, checkpoint.tensors));
    EXPECT_EQ(checkpoint.metadata, (Metadata{{"note", "a \"b\"\n"}, {"format", "pt"}}));
    EXPECT_EQ(checkpoint.files.at("scalar"), path);
    for (const auto& [name, tensor] : checkpoint.tensors) {
        EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.raw()) % static_cast<size_t>(size_of(tensor.dtype())), 0)
            << name;
    }
}

TEST(Safetensors, EqualContentGivesEqualBytes) {
    std::string folder = fresh_folder();
    write_safetensors(folder + "/a", assorted_tensors());
    write_safetensors(folder + "/b", read_safetensors(folder + "/a").tensors);
    std::string bytes = read_bytes(folder + "/a");
    EXPECT_EQ(bytes, read_bytes(folder + "/b"));
    uint64_t header = 0;
    std::memcpy(&header, bytes.data(), 8);
    EXPECT_EQ(header % 8, 0);
}

TEST(Safetensors, NoTensorsAtAll) {
    std::string path = fresh_folder() + "/x";
    write_safetensors(path, {});
    EXPECT_TRUE(read_safetensors(path).tensors.empty());
}

TEST(Safetensors, WritingIntoATensorLeavesTheFile) {
    std::string path = fresh_folder() + "/x";
    write_safetensors(path, {{"w", full({4}, 1.0, DType::F32)}});
    Checkpoint checkpoint = read_safetensors(path);
    Tensor w = checkpoint.tensors.at("w");
    checkpoint = {};
    EXPECT_TRUE(w.unique());
    w.data<float>()[0] = 7;
    EXPECT_EQ(w.data<float>()[0], 7);
    EXPECT_EQ(read_safetensors(path).tensors.at("w").data<float>()[0], 1);
}

TEST(Safetensors, TensorsOutliveTheFile) {
    std::string path = fresh_folder() + "/x";
    write_safetensors(path, {{"w", full({4}, 1.0, DType::F32)}});
    Tensor w = read_safetensors(path).tensors.at("w");
    write_safetensors(path, {{"w", full({4}, 2.0, DType::F32)}});
    EXPECT_EQ(w.data<float>()[3], 1);
    std::filesystem::remove(path);
    EXPECT_EQ(w.data<float>()[3], 1);
}

TEST(Safetensors, MisalignedDataIsCopied) {
    // One byte before the float, and a header length that is no multiple of 8.
    std::string header = json{{"b", entry("U8", {1}, 0, 1)}, {"f", entry("F32", {2}, 1, 9)}}.dump();
    for (int pad = 0; pad < 4; ++pad) {
        float values[2] = {1.5f, -2.0f};
        std::string data = join("x", std::string(reinterpret_cast<char*>(values), 8));
        std::string path = fresh_folder() + "/x";
        write_bytes(path, file_of(header + std::string(static_cast<size_t>(pad), ' '), data));
        Checkpoint checkpoint = read_safetensors(path);
        const Tensor& f = checkpoint.tensors.at("f");
        EXPECT_EQ(reinterpret_cast<uintptr_t>(f.raw()) % 4, 0);
        EXPECT_EQ(to_vector<float>(f), (std::vector<float>{1.5f, -2.0f}));
    }
}

TEST(Safetensors, AllReferenceFilesLoad) {
    int n = 0;
    for (const auto& file : std::filesystem::directory_iterator(golden(""))) {
        if (file.path().extension() != ".safetensors") continue;
        Checkpoint checkpoint = read_safetensors(file.path().string());
        EXPECT_FALSE(checkpoint.tensors.empty()) << file.path();
        int64_t bytes = 0;
        for (const auto& [name, tensor] : checkpoint.tensors) bytes += tensor.bytes();
        EXPECT_GT(bytes, static_cast<int64_t>(file.file_size()) / 2) << file.path();
        std::string again = fresh_folder() + "/x";
        write_safetensors(again, checkpoint.tensors, checkpoint.metadata);
        EXPECT_TRUE(same_tensors(checkpoint.tensors, read_safetensors(again).tensors));
        ++n;
    }
    EXPECT_GT(n, 0);
}

TEST(Safetensors, LyingHeaders) {
    std::string data(64, 'x');
    auto with = [&](const json& header) { return file_of(header.dump(), data); };
    expect_error(with({{"w", entry("F32", {17}, 0, 68)}}), {"\"w\"", "68", "64", "truncated"});
    expect_error(with({{"w", entry("F32", {4}, 0, 64)}}), {"\"w\"", "[4]", "16 bytes", "0 .. 64"});
    expect_error(with({{"w", entry("F32", {4}, 64, 48)}}), {"\"w\"", "64 .. 48"});
    expect_error(with({{"w", entry("Q4", {16}, 0, 64)}}), {"\"w\"", "\"Q4\"", "F8_E4M3"});
    expect_error(with({{"a", entry("F32", {8}, 0, 32)}, {"b", entry("F32", {9}, 28, 64)}}),
                 {"\"a\"", "\"b\"", "overlap"});
    expect_error(with({{"a", entry("F32", {4}, 0, 16)}, {"b", entry("F32", {8}, 32, 64)}}),
                 {"\"b\"", "32", "gap"});
    expect_error(with({{"a", entry("F32", {4}, 0, 16)}}), {"48 bytes follow"});
    expect_error(with({{"w", entry("F32", {1ull << 33, 1ull << 33}, 0, 64)}}), {"\"w\"", "overflows"});
    expect_error(with({{"w", entry("F32", {0, 1ull << 62, 1ull << 62}, 0, 0)}}), {"\"w\"", "overflows"});
    expect_error(with({{"w", entry("F32", {1ull << 63}, 0, 64)}}), {"\"w\"", "63 bits"});
    expect_error(with({{"w", entry("F32", {1, 1, 1, 1, 1, 1, 1, 1, 16}, 0, 64)}}), {"\"w\"", "8 dimensions"});
    expect_error(with({{"w", {{"dtype", "F32"}, {"shape", {16}}}}}), {"\"w\"", "data_offsets"});
    expect_error(with({{"w", {{"dtype", "F32"}, {"shape", {-16}}, {"data_offsets", {0, 64}}}}}),
                 {"\"w\"", "negative"});
    expect_error(with({{"w", {{"dtype", "F32"}, {"shape", {1.5}}, {"data_offsets", {0, 64}}}}}),
                 {"\"w\"", "integer"});
    expect_error(with({{"w", {{"dtype", "F32"}, {"shape", {{16}}}, {"data_offsets", {0, 64}}}}}),
                 {"\"w\"", "a list"});
    expect_error(with({{"w", {{"dtype", 3}, {"shape", {16}}, {"data_offsets", {0, 64}}}}}),
                 {"\"w\"", "a number"});
    expect_error(with({{"w", {{"dtype", "F32"}, {"shape", {16}}, {"data_offsets", {0, 64, 64}}}}}),
                 {"more than two"});
    expect_error(with({{"w", {{"dtype", "F32"}, {"shape", {16}}, {"data_offsets", {0, 64}}, {"x", 1}}}}),
                 {"\"x\""});
    expect_error(with({{"w", 3}}), {"\"w\"", "a number"});
    expect_error(with({{"w", nullptr}}), {"\"w\"", "null"});
    expect_error(with({{"__metadata__", {{"a", 1}}}}), {"a number"});
    expect_error(with({{"__metadata__", {{"a", {{"b", "c"}}}}}}), {"an object"});
    expect_error(file_of("{\"w\":{}, \"w\":{}}", ""), {"\"w\""});
    std::string w = entry("U8", {0}, 0, 0).dump();
    expect_error(file_of(join("{\"w\":", w, ",\"w\":", w, "}"), ""), {"\"w\"", "twice"});
    expect_error(file_of("{\"w\":{\"dtype\":\"U8\",\"dtype\":\"I8\"}}", ""), {"\"w\"", "dtype twice"});
    expect_error(file_of(join("{\"w\":", w, "} trailing"), ""), {"JSON"});
    expect_error(file_of(join("{\"w\":", w), ""), {"JSON"});
    expect_error(file_of(join("{\"\xff\":", w, "}"), ""), {"JSON"});
    expect_error(file_of(join("{", std::string(100000, '[')), ""), {"JSON"});
    expect_error(file_of(join("{\"a\":", std::string(100000, '[')), ""), {"a list"});
}

TEST(Safetensors, LyingLengths) {
    std::string header = json{{"w", entry("F32", {16}, 0, 64)}}.dump();
    std::string good = file_of(header, std::string(64, 'x'));
    auto with_length = [&](uint64_t length) {
        std::string bytes = good;
        std::memcpy(bytes.data(), &length, 8);
        return bytes;
    };
    expect_error(with_length(~uint64_t{0}), {"18446744073709551615", "100000000"});
    expect_error(with_length(uint64_t{1} << 63), {"100000000"});
    expect_error(with_length(100'000'001), {"100000001"});
    expect_error(with_length(100'000'000), {"100000000", "truncated"});
    expect_error(with_length(good.size() - 7), {"truncated"});
    expect_error(with_length(header.size() - 1), {"JSON"});
    expect_error(with_length(header.size() + 1), {"JSON"});
    expect_error(with_length(0), {"no safetensors file"});
}

TEST(Safetensors, EveryTruncationIsRefused) {
    std::string folder = fresh_folder();
    write_safetensors(folder + "/x",
                      {{"w", full({2, 3}, 1.0, DType::F32)}, {"v", full({3}, 1.0, DType::BF16)}});
    std::string whole = read_bytes(folder + "/x");
    for (size_t n = 0; n < whole.size(); ++n) {
        write_bytes(folder + "/y", whole.substr(0, n));
        EXPECT_THROW(read_safetensors(folder + "/y"), InputError) << n;
    }
    write_bytes(folder + "/y", whole + "z");
    EXPECT_THROW(read_safetensors(folder + "/y"), InputError);
}

TEST(Safetensors, LengthsThatLookLikeOtherFormats) {
    // A header of 0x280 bytes begins with the bytes of a pickle, one of 0x8b1f with those of gzip.
    for (size_t length : {0x280, 0x8b1f, 0x7b, 0x5b}) {
        std::string header = json{{"w", entry("U8", {2}, 0, 2)}}.dump();
        header.resize(length, ' ');
        std::string path = fresh_folder() + "/x";
        write_bytes(path, file_of(header, "ab"));
        EXPECT_EQ(read_safetensors(path).tensors.size(), 1);
    }
}

TEST(Safetensors, WriterRefusesWhatTheFormatCannotHold) {
    std::string path = fresh_folder() + "/x";
    Tensor w = zeros({1}, DType::F32);
    EXPECT_THROW(write_safetensors(path, {{"__metadata__", w}}), InputError);
    EXPECT_THROW(write_safetensors(path, {{"\xff", w}}), InputError);
    EXPECT_THROW(write_safetensors(path, {{"w", Tensor()}}), Error);
    EXPECT_TRUE(std::filesystem::is_empty(std::filesystem::path(path).parent_path()));
}

}  // namespace
