// Files of torch.save: reference files, round trips, hand-made pickles, and the ones that must be refused.
#include "io/pth.h"

#include <gtest/gtest.h>

#include <functional>

#include "files.h"
#include "io/safetensors.h"
#include "io/zip.h"

using namespace sana;
using namespace sana::test;
using namespace std::string_literals;

namespace {

using Records = std::map<std::string, std::string>;

// A zip file as torch.save lays it out, with this pickle and these storages.
void write_archive(const std::string& path, const std::string& pickle, const Records& records) {
    AtomicFile file(path);
    ZipWriter zip(file);
    zip.add("x/data.pkl", pickle);
    for (const auto& [name, bytes] : records) zip.add("x/" + name, bytes);
    zip.finish();
    file.commit();
}

std::string number(int32_t value) { return "J"s + std::string(reinterpret_cast<char*>(&value), 4); }

std::string text(const std::string& value) {
    auto length = static_cast<uint32_t>(value.size());
    return join("X", std::string(reinterpret_cast<char*>(&length), 4), value);
}

std::string tuple(const std::vector<int32_t>& values) {
    std::string out = "(";
    for (int32_t value : values) out += number(value);
    return out + "t";
}

std::string storage(const std::string& key, int32_t elements, const std::string& kind = "FloatStorage") {
    return join("(", text("storage"), "ctorch\n", kind, "\n", text(key), text("cpu"), number(elements), "tQ");
}

std::string tensor(const std::string& the_storage, int32_t offset, const std::vector<int32_t>& shape,
                   const std::vector<int32_t>& strides) {
    return join("ctorch._utils\n_rebuild_tensor_v2\n(", the_storage, number(offset), tuple(shape),
                tuple(strides), "\x89", "ccollections\nOrderedDict\n)RtR");
}

std::string pickle_of(const std::string& body) { return join("\x80\x02", body, "."); }

std::string floats(int n) {
    std::vector<float> values(static_cast<size_t>(n));
    for (int i = 0; i < n; ++i) values[static_cast<size_t>(i)] = static_cast<float>(i);
    return {reinterpret_cast<char*>(values.data()), values.size() * 4};
}

Checkpoint read_pickled(const std::string& body, const Records& records = {{"data/0", floats(12)}}) {
    std::string path = fresh_folder() + "/x.pth";
    write_archive(path, pickle_of(body), records);
    return read_pth(path);
}

void expect_refused(const std::string& body, const std::vector<std::string>& words,
                    const Records& records = {{"data/0", floats(12)}}) {
    std::string message = input_error([&] { read_pickled(body, records); });
    for (const std::string& word : words) EXPECT_NE(message.find(word), std::string::npos) << message;
    EXPECT_NE(message.find("x.pth"), std::string::npos) << message;
}

TEST(Pth, ReferenceFileHoldsTheStreamWeights) {
    TensorMap expected;
    for (const auto& [name, value] : read_safetensors(golden("long_stream.safetensors")).tensors) {
        if (name.starts_with("w.")) expected[name.substr(2)] = value.named(name.substr(2));
    }
    ASSERT_FALSE(expected.empty());
    Checkpoint checkpoint = read_pth(golden("sana_video_tiny.pth"));
    int shared = 0;
    for (const auto& [name, value] : expected) {
        ASSERT_EQ(checkpoint.tensors.count(name), 1) << name;
        EXPECT_TRUE(same_bytes(value, checkpoint.tensors.at(name))) << name;
        ++shared;
    }
    Checkpoint half = read_pth(golden("sana_video_tiny_bf16.pth"));
    for (const auto& [name, value] : expected) {
        const Tensor& rounded = half.tensors.at(name);
        EXPECT_EQ(rounded.dtype(), DType::BF16) << name;
        EXPECT_TRUE(same_bytes(value.to(DType::BF16), rounded)) << name;
    }
    EXPECT_EQ(checkpoint.tensors.size(), half.tensors.size());
    EXPECT_GT(shared, 0);
    EXPECT_EQ(checkpoint.files.begin()->second, golden("sana_video_tiny.pth"));
}

TEST(Pth, RoundTripOfEveryDtype) {
    std::string folder = fresh_folder();
    TensorMap tensors = assorted_tensors();
    write_pth(folder + "/a.pth", tensors, {{"note", "\xc3\xa9"}});
    Checkpoint checkpoint = read_pth(folder + "/a.pth");
    EXPECT_TRUE(same_tensors(tensors, checkpoint.tensors));
    EXPECT_EQ(checkpoint.metadata.at("note"), "\xc3\xa9");
    write_pth(folder + "/b.pth", checkpoint.tensors, checkpoint.metadata);
    EXPECT_EQ(read_bytes(folder + "/a.pth"), read_bytes(folder + "/b.pth"));
    for (const auto& [name, value] : checkpoint.tensors) {
        EXPECT_TRUE(value.numel() == 0 || reinterpret_cast<uintptr_t>(value.raw()) % 64 == 0) << name;
    }
}

TEST(Pth, StridedOffsetAndSharedViews) {
    std::string s = storage("0", 12);
    Checkpoint checkpoint = read_pickled(
        join("}(", text("plain"), tensor(s, 0, {3, 4}, {4, 1}), text("turned"), tensor(s, 0, {4, 3}, {1, 4}),
             text("part"), tensor(s, 5, {2, 2}, {4, 1}), text("wide"), tensor(s, 2, {2, 3}, {0, 1}),
             text("one"), tensor(s, 7, {}, {}), text("thin"), tensor(s, 3, {1, 1}, {99, 77}), text("row"),
             tensor(s, 8, {1, 4}, {99, 1}), "u"));
    auto values = [&](const char* name) { return to_vector<float>(checkpoint.tensors.at(name)); };
    using Floats = std::vector<float>;
    EXPECT_EQ(values("plain"), (Floats{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
    EXPECT_EQ(values("turned"), (Floats{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11}));
    EXPECT_EQ(values("part"), (Floats{5, 6, 9, 10}));
    EXPECT_EQ(values("wide"), (Floats{2, 3, 4, 2, 3, 4}));
    EXPECT_EQ(values("one"), (Floats{7}));
    EXPECT_EQ(values("thin"), (Floats{3}));
    EXPECT_EQ(values("row"), (Floats{8, 9, 10, 11}));
    EXPECT_EQ(checkpoint.tensors.at("plain").storage(), checkpoint.tensors.at("row").storage());
    EXPECT_FALSE(checkpoint.tensors.at("plain").unique());
}

TEST(Pth, WhichDictionaryHoldsTheWeights) {
    std::string t = tensor(storage("0", 12), 0, {2}, {1});
    auto names = [&](const std::string& body) {
        std::string out;
        for (const auto& [name, value] : read_pickled(body).tensors) out += name + " ";
        return out;
    };
    EXPECT_EQ(names(join("}(", text("a.b"), t, text("c"), t, text("epoch"), number(3), "u")), "a.b c ");
    EXPECT_EQ(
        names(join("}(", text("state_dict"), "}(", text("a"), t, "u", text("ema"), "}(", text("b"), t, "uu")),
        "a ");
    for (const char* key : {"model", "ema", "state_dict_ema"}) {
        EXPECT_EQ(
            names(join("}(", text("other"), "}(", text("z"), t, "u", text(key), "}(", text("a"), t, "uu")),
            "a ");
    }
    EXPECT_EQ(
        names(join("}(", text("p"), "}(", text("q"), "](", t, t, "eu", text("r"), "}(", text("s"), t, "uu")),
        "p.q.0 p.q.1 r.s ");
    Checkpoint checkpoint =
        read_pickled(join("}(", text("a"), t, text("epoch"), number(-3), text("best"), "\x88", text("name"),
                          text("n"), text("loss"), "G\x3f\xe0\0\0\0\0\0\0"s, "u"));
    EXPECT_EQ(checkpoint.metadata, (std::map<std::string, std::string>{
                                       {"epoch", "-3"}, {"best", "true"}, {"name", "n"}, {"loss", "0.5"}}));
}

TEST(Pth, NewerOpcodesParametersAndAttributes) {
    // Protocol 4: frames, short strings, names from the stack, memo; a Parameter; an OrderedDict with attributes.
    auto brief = [](const std::string& value) {
        return join("\x8c", static_cast<char>(value.size()), value);
    };
    auto name = [&](const std::string& module, const std::string& value) {
        return join(brief(module), brief(value), "\x93");
    };
    std::string inner =
        join(name("torch._utils", "_rebuild_tensor_v2"), "((", brief("storage"),
             name("torch", "FloatStorage"), brief("0"), brief("cuda:0"), "K\x0ctQK\x02K\x03\x85K\x01\x85\x89",
             name("collections", "OrderedDict"), ")RtR\x94");
    std::string body =
        join("\x95\x10\0\0\0\0\0\0\0"s, name("collections", "OrderedDict"), ")R\x94(", brief("w"),
             name("torch._utils", "_rebuild_parameter"), inner, "\x88", name("collections", "OrderedDict"),
             ")R\x87R", brief("same"), "h\x01u}(", brief("_metadata"), "C\x02zzub");
    Checkpoint checkpoint = read_pickled(body);
    EXPECT_EQ(to_vector<float>(checkpoint.tensors.at("w")), (std::vector<float>{2, 3, 4}));
    EXPECT_EQ(to_vector<float>(checkpoint.tensors.at("same")), (std::vector<float>{2, 3, 4}));
}

TEST(Pth, CodeIsRefused) {
    expect_refused(join("cos\nsystem\n(", text("echo"), "tR"), {"run code", "os.system", "refused"});
    expect_refused(join("cbuiltins\neval\n(", text("1"), "tR"), {"builtins.eval"});
    expect_refused(join("\x8c\x02os\x8c\x06system\x93"), {"os.system"});
    expect_refused("ctorch\nload\n", {"torch.load"});
    expect_refused("ctorch._utils\n_rebuild_tensor_v2.__globals__\n", {"refused"});
    expect_refused("ctorch\nComplexFloatStorage\n", {"ComplexFloatStorage", "not supported"});
    // Instance opcodes, extensions and objects made by class.
    for (const char* opcodes : {"(ios\nsystem\n", "(cos\nsystem\no", "\x82\x01", "\x83\x01\x01", "P0\n"}) {
        expect_refused(opcodes, {"refused"});
    }
    expect_refused("ccollections\nOrderedDict\n)\x81", {"0x81", "refused"});
    expect_refused("}}b}R", {"no function"});
}

TEST(Pth, DamagedPickles) {
    std::string s = storage("0", 12);
    auto one = [&](const std::string& t) { return join("}", text("w"), t, "s"); };
    expect_refused(one(tensor(s, 0, {13}, {1})), {"\"w\"", "[13]", "12"});
    expect_refused(one(tensor(s, 1, {3, 4}, {4, 1})), {"\"w\"", "behind its storage"});
    expect_refused(one(tensor(s, -1, {1}, {1})), {"negative"});
    expect_refused(one(tensor(s, 0, {-1}, {1})), {"sizes"});
    expect_refused(one(tensor(s, 0, {2}, {-1})), {"strides"});
    expect_refused(one(tensor(s, 0, {2, 2}, {1})), {"strides"});
    expect_refused(one(tensor(s, 0, {1, 1, 1, 1, 1, 1, 1, 1, 1}, {1, 1, 1, 1, 1, 1, 1, 1, 1})),
                   {"9 dimensions"});
    expect_refused(one(tensor(s, 0, {1 << 30, 1 << 30, 1 << 30}, {0, 0, 0})), {"\"w\"", "overflows"});
    expect_refused(one(tensor(s, 0, {1 << 30}, {0})), {"refused"});  // a gigabyte-sized view of one number
    expect_refused(one(tensor(s, 0, {3, 3}, {2147483647, 2147483647})), {"behind its storage"});
    expect_refused(one(tensor(storage("0", 13), 0, {2}, {1})), {"13 elements", "48 bytes"});
    expect_refused(one(tensor(storage("7", 12), 0, {2}, {1})), {"\"x/data/7\"", "download"});
    expect_refused(one(tensor(storage("0", 12, "UntypedStorage"), 0, {2}, {1})), {"no dtype"});
    expect_refused(one(tensor(number(3), 0, {2}, {1})), {"storage"});
    expect_refused("}h\x05s", {"value 5"});
    expect_refused("}}", {"not empty"});
    expect_refused("", {"not empty"});
    expect_refused("0", {"empty stack"});
    expect_refused("}(e", {"container"});
    expect_refused("}(Nu", {"no value"});
    expect_refused("e", {"mark"});
    expect_refused("X\xff\xff\xff\xff", {"ends too early"});
    expect_refused("\x8d\xff\xff\xff\xff\xff\xff\xff\xff", {"ends too early"});
    expect_refused(std::string(300, '('), {"nested deeper"});
    expect_refused("N", {"no dictionary"});
    expect_refused(join("}", text("a"), number(1), "s"), {"no tensors", "a"});
    expect_refused(one(s), {"no tensors"});
    expect_refused(join("}(", text("w"), tensor(s, 0, {2}, {1}), text("w"), tensor(s, 0, {2}, {1}), "u"),
                   {"\"w\"", "twice"});
    std::string path = fresh_folder() + "/y.pth";
    write_archive(path, "\x80\x09.", {});
    EXPECT_NE(input_error([&] { read_pth(path); }).find("protocol 9"), std::string::npos);
}

TEST(Pth, ValuesThatContainThemselves) {
    // d = {}; d["d"] = d
    expect_refused(join("}q\x01", text("d"), "h\x01s"), {"nested deeper"});
    // Twenty-six lists, each holding the one before twice: 2^26 visits if nothing stopped them.
    std::string lists = "](NNeq\x01"s;
    for (int i = 0; i < 26; ++i) lists += "0](h\x01h\x01"s + "eq\x01";
    expect_refused(join("}(", text("l"), lists, text("w"), tensor(storage("0", 12), 0, {2}, {1}), "u"),
                   {"unfolds", "refused"});
}

TEST(Pth, ArchivesOfOtherKinds) {
    std::string path = fresh_folder() + "/x.pth";
    auto message_of = [&](const std::function<void(ZipWriter&)>& fill) {
        {
            AtomicFile file(path);
            ZipWriter zip(file);
            fill(zip);
            zip.finish();
            file.commit();
        }
        return input_error([&] { read_pth(path); });
    };
    EXPECT_NE(message_of([](ZipWriter& zip) { zip.add("a.npy", "x"); }).find("no data.pkl"),
              std::string::npos);
    EXPECT_NE(message_of([](ZipWriter& zip) {
                  zip.add("a/data.pkl", "x"), zip.add("b/data.pkl", "x");
              }).find("two pickles"),
              std::string::npos);
    EXPECT_NE(message_of([](ZipWriter& zip) {
                  zip.add("a/data.pkl", "x"), zip.add("a/data.pkl", "x");
              }).find("twice"),
              std::string::npos);
    EXPECT_NE(message_of([](ZipWriter& zip) {
                  zip.add("a/data.pkl", "x"), zip.add("a/constants.pkl", "x");
              }).find("TorchScript"),
              std::string::npos);
    EXPECT_NE(message_of([](ZipWriter& zip) {
                  zip.add("a/data.pkl", "x"), zip.add("a/byteorder", "big");
              }).find("little-endian"),
              std::string::npos);
}

TEST(Pth, EveryTruncationIsRefused) {
    std::string folder = fresh_folder();
    write_pth(folder + "/x", {{"w", full({2, 3}, 1.0, DType::F32)}, {"v", full({3}, 1.0, DType::BF16)}});
    std::string whole = read_bytes(folder + "/x");
    for (size_t n = 0; n < whole.size(); ++n) {
        write_bytes(folder + "/y", whole.substr(0, n));
        EXPECT_THROW(read_pth(folder + "/y"), InputError) << n;
    }
}

TEST(Pth, OldPicklesHaveToBeSavedAgain) {
    std::string path = fresh_folder() + "/old.pth";
    write_bytes(path, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."s);
    EXPECT_NE(input_error([&] { read_pth(path); }).find("save it again"), std::string::npos);
}

TEST(Pth, WriterRefusesWhatTheFormatCannotHold) {
    std::string path = fresh_folder() + "/x";
    Tensor w = zeros({1}, DType::F32);
    EXPECT_THROW(write_pth(path, {{"\xc0\x80", w}}), InputError);
    EXPECT_THROW(write_pth(path, {{"w", w}}, {{"state_dict", "x"}}), InputError);
    EXPECT_THROW(write_pth(path, {{"w", Tensor()}}), Error);
    EXPECT_TRUE(std::filesystem::is_empty(std::filesystem::path(path).parent_path()));
}

}  // namespace
