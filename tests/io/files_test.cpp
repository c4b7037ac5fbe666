// Mapped files, atomic writing, text and JSON files, and choosing a reader by content.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "files.h"
#include "io/checkpoint.h"
#include "io/mmap.h"
#include "io/pth.h"
#include "io/safetensors.h"
#include "io/text_file.h"

using namespace sana;
using namespace sana::test;
using namespace std::string_literals;

namespace {

void expect_words(const std::string& message, const std::vector<std::string>& words) {
    for (const std::string& word : words) EXPECT_NE(message.find(word), std::string::npos) << message;
}

// While alive, the process has no rights to others' files (root would have all).
class WithoutRights {
public:
    WithoutRights() {
        if (geteuid() == 0) dropped_ = seteuid(65534) == 0;
    }
    ~WithoutRights() {
        if (dropped_ && seteuid(0) != 0) std::abort();
    }
    bool active() const { return geteuid() != 0; }

private:
    bool dropped_ = false;
};

// While alive, no file can grow beyond this many bytes: writing fails as on a full disk.
class SmallFiles {
public:
    explicit SmallFiles(rlim_t bytes) : signal_(std::signal(SIGXFSZ, SIG_IGN)) {
        getrlimit(RLIMIT_FSIZE, &before_);
        rlimit small{bytes, before_.rlim_max};
        setrlimit(RLIMIT_FSIZE, &small);
    }
    ~SmallFiles() {
        setrlimit(RLIMIT_FSIZE, &before_);
        std::signal(SIGXFSZ, signal_);
    }

private:
    rlimit before_{};
    void (*signal_)(int);
};

TEST(MappedFile, SaysWhyAFileCannotBeRead) {
    std::string folder = fresh_folder();
    write_bytes(folder + "/empty", "");
    mkfifo((folder + "/pipe").c_str(), 0600);
    std::filesystem::create_symlink("loop", folder + "/loop");
    auto error = [](const std::string& path) { return input_error([&] { MappedFile::open(path); }); };
    expect_words(error(folder + "/none"), {folder + "/none", "no such file"});
    expect_words(error(folder), {folder, "is a folder"});
    expect_words(error(folder + "/empty"), {"is empty"});
    expect_words(error(folder + "/empty/x"), {"not a folder"});
    expect_words(error(folder + "/pipe"), {"pipe"});
    expect_words(error(folder + "/loop"), {"circle"});
    expect_words(error("/dev/null"), {"a device"});
    write_bytes(folder + "/secret", "x");
    chmod((folder + "/secret").c_str(), 0);
    WithoutRights without;
    if (!without.active()) GTEST_SKIP() << "running as root and cannot be another user";
    expect_words(error(folder + "/secret"), {"no permission"});
}

TEST(MappedFile, SlicesStayInsideAndKeepTheFile) {
    std::string path = fresh_folder() + "/x";
    write_bytes(path, "0123456789");
    std::shared_ptr<MappedFile> file = MappedFile::open(path);
    EXPECT_EQ(file->text(), "0123456789");
    EXPECT_THROW(slice_of(file, 5, 6), Error);
    EXPECT_THROW(slice_of(file, -1, 1), Error);
    EXPECT_THROW(slice_of(file, 1, INT64_MAX), Error);
    StoragePtr slice = slice_of(file, 4, 3);
    file.reset();
    EXPECT_EQ(std::string(reinterpret_cast<char*>(slice->data()), 3), "456");
}

TEST(AtomicFile, OldContentStaysUntilCommit) {
    std::string path = fresh_folder() + "/x";
    write_bytes(path, "old");
    {
        AtomicFile file(path);
        file.write("new");
        EXPECT_EQ(read_bytes(path), "old");
    }
    EXPECT_EQ(read_bytes(path), "old");
}

TEST(AtomicFile, NothingIsLeftBehind) {
    std::string folder = fresh_folder(), path = folder + "/x";
    { AtomicFile(path).write("abc"); }
    EXPECT_TRUE(std::filesystem::is_empty(folder));
    AtomicFile a(path), b(path);
    a.write("a");
    b.write("b");
    a.commit();
    b.commit();
    EXPECT_EQ(read_bytes(path), "b");
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1);
}

TEST(AtomicFile, SymbolicLinksStay) {
    std::string folder = fresh_folder();
    write_bytes(folder + "/real", "old");
    std::filesystem::create_symlink("real", folder + "/link");
    write_text_file(folder + "/link", "new");
    EXPECT_TRUE(std::filesystem::is_symlink(folder + "/link"));
    EXPECT_EQ(read_bytes(folder + "/real"), "new");
}

TEST(AtomicFile, SaysWhyAFileCannotBeWritten) {
    std::string folder = fresh_folder();
    write_bytes(folder + "/file", "x");
    auto error = [](const std::string& path) { return input_error([&] { write_text_file(path, "x"); }); };
    expect_words(error(folder + "/none/x"), {folder + "/none/x", "does not exist"});
    expect_words(error(folder + "/file/x"), {"not a folder"});
    expect_words(error(folder), {"is a folder"});
    expect_words(error("/dev/full"), {"/dev/full", "device"});
    expect_words(error(""), {"empty path"});
    expect_words(error(folder + "/" + std::string(300, 'a')), {"too long"});
    chmod(folder.c_str(), 0555);
    WithoutRights without;
    if (!without.active()) GTEST_SKIP() << "running as root and cannot be another user";
    expect_words(error(folder + "/x"), {"no permission"});
}

TEST(AtomicFile, AFullDiskLeavesTheOldFile) {
    std::string folder = fresh_folder();
    TensorMap small{{"w", full({4}, 1.0, DType::F32)}}, large{{"w", full({100000}, 1.0, DType::F32)}};
    write_safetensors(folder + "/x.safetensors", small);
    write_pth(folder + "/x.pth", small);
    std::string before = read_bytes(folder + "/x.safetensors"), before_pth = read_bytes(folder + "/x.pth");
    {
        SmallFiles limit(65536);
        for (const char* name : {"/x.safetensors", "/x.pth"}) {
            try {
                name == "/x.pth"s ? write_pth(folder + name, large) : write_safetensors(folder + name, large);
                ADD_FAILURE() << "writing beyond the limit succeeded";
            } catch (const Error& error) {
                expect_words(error.what(), {folder + name, "cannot be written", "file-size limit"});
            }
        }
    }
    EXPECT_EQ(read_bytes(folder + "/x.safetensors"), before);
    EXPECT_EQ(read_bytes(folder + "/x.pth"), before_pth);
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 2);
}

TEST(TextFile, ReadsWithABound) {
    std::string path = fresh_folder() + "/x";
    write_text_file(path, "0123456789");
    EXPECT_EQ(read_text_file(path, 10), "0123456789");
    expect_words(input_error([&] { read_text_file(path, 9); }), {path, "9 bytes"});
    expect_words(input_error([&] { read_text_file(path + "y"); }), {"no such file"});
    expect_words(input_error([&] { read_text_file(fresh_folder()); }), {"is a folder"});
    EXPECT_FALSE(read_text_file("/proc/self/status").empty());
    std::string endless = input_error([] { read_text_file("/dev/zero", 100000); });
    expect_words(endless, {"/dev/zero"});
}

TEST(TextFile, JsonOfPython) {
    std::string path = fresh_folder() + "/x.json";
    auto read = [&](const std::string& text) {
        write_text_file(path, text);
        return nlohmann::json::parse(read_json_text(path));
    };
    EXPECT_EQ(
        read(R"({"a": -Infinity, "b": [NaN, Infinity], "c": "-Infinity \" NaN \\", "NaN": 1})"),
        nlohmann::json::parse(R"({"a": null, "b": [null, null], "c": "-Infinity \" NaN \\", "NaN": 1})"));
    EXPECT_EQ(read("\xef\xbb\xbf [1]"), nlohmann::json::parse("[1]"));
    auto error = [&](const std::string& text) { return input_error([&] { read(text); }); };
    expect_words(error("{\n  \"a\": 1,\n  \"b\": }\n"), {path, "line 3, column 8"});
    expect_words(error("{\"a\": NaNa}"), {"not valid JSON"});
    expect_words(error("{\"a\": \"NaN"), {"not valid JSON"});
    expect_words(error(" \n"), {"is empty"});
    expect_words(error("version https://git-lfs.github.com/spec/v1\n"), {"git lfs pull"});
    expect_words(error(std::string(201, '[') + std::string(201, ']')), {"nested deeper than 200"});
    EXPECT_NO_THROW(read(std::string(200, '[') + std::string(200, ']')));
}

TEST(ReadCheckpoint, TakesTheReaderByContent) {
    std::string folder = fresh_folder();
    TensorMap tensors{{"w", full({2}, 3.0, DType::F32)}};
    write_safetensors(folder + "/a.pth", tensors);
    write_pth(folder + "/b.safetensors", tensors);
    EXPECT_TRUE(same_tensors(tensors, read_checkpoint(folder + "/a.pth").tensors));
    EXPECT_TRUE(same_tensors(tensors, read_checkpoint(folder + "/b.safetensors").tensors));
    for (const char* base : {"diffusion_pytorch_model", "model"}) {
        std::string part = folder + "/" + base;
        write_sharded(part, base, {{"v", tensors["w"]}, {"w", tensors["w"]}}, 8);
        EXPECT_EQ(read_checkpoint(part).tensors.size(), 2);
        EXPECT_EQ(read_checkpoint(part + "/" + base + ".safetensors.index.json").tensors.size(), 2);
    }
}

TEST(ReadCheckpoint, SaysWhatAFileIsInstead) {
    std::string folder = fresh_folder(), path = folder + "/x.safetensors";
    auto error = [&](const std::string& bytes) {
        write_bytes(path, bytes);
        std::string direct = input_error([&] { read_safetensors(path); });
        std::string message = input_error([&] { read_checkpoint(path); });
        EXPECT_NE(message.find(path), std::string::npos);
        EXPECT_NE(direct.find(path), std::string::npos);
        return message;
    };
    expect_words(error("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"),
                 {"git lfs pull"});
    expect_words(error("\n <!DOCTYPE html><html>"), {"web page"});
    expect_words(error("<HTML><head>"), {"web page"});
    expect_words(error("<?xml version=\"1.0\"?><Error>"), {"XML"});
    expect_words(error("GGUF\3\0\0\0"s), {"GGUF"});
    expect_words(error("\x1f\x8b\x08\0\0\0\0\0\0\0"s), {"gzip"});
    expect_words(error(std::string(257, 'x') + "ustar  " + std::string(300, 'x')), {"tar archive"});
    expect_words(error("\x80\x04\x95\x0a"), {"PyTorch", "save it again"});
    expect_words(error("{\"a\": 1}"), {"JSON"});
    expect_words(error(std::string(64, '\0')), {"zero bytes"});
    expect_words(error("hello world, this is a text"), {"neither", "hello world"});
    expect_words(input_error([&] { read_checkpoint(folder + "/none"); }), {"no such file"});
    std::filesystem::remove(path);
    expect_words(input_error([&] { read_checkpoint(folder); }), {"no diffusion_pytorch_model.safetensors"});
    write_text_file(folder + "/model_index.json", "{}");
    expect_words(input_error([&] { read_checkpoint(folder); }), {"model_index.json", "transformer"});
}

}  // namespace
