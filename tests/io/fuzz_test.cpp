// Random damage: readers of files either succeed or throw an InputError, and what they return can be read to its end.
#include "fuzz.h"

#include <gtest/gtest.h>

#include "files.h"
#include "io/mmap.h"
#include "io/pickle.h"
#include "io/pth.h"
#include "io/safetensors.h"
#include "io/safetensors_header.h"
#include "io/text_file.h"
#include "io/zip.h"

using namespace sana;
using namespace sana::test;

namespace {

constexpr double kSeconds = 3;

// Touches every byte, so that a view outside its memory is seen.
int64_t sum_of(const Checkpoint& checkpoint) {
    int64_t sum = 0;
    for (const auto& [name, tensor] : checkpoint.tensors) {
        const auto* bytes = static_cast<const uint8_t*>(tensor.raw());
        for (int64_t i = 0; i < tensor.bytes(); ++i) sum += bytes[i];
    }
    return sum;
}

TensorMap few_tensors() {
    return {{"a.weight", full({2, 3}, 1.0, DType::F32)},
            {"b", full({5}, 2.0, DType::BF16)},
            {"c", full({}, 3.0, DType::I64)},
            {"d", zeros({0, 4}, DType::U8)},
            {"e", zeros({3}, DType::F8E4M3)}};
}

std::string pickle_of(const std::string& path) {
    StoragePtr pickle = ZipReader(MappedFile::open(path)).read("archive/data.pkl");
    return {reinterpret_cast<char*>(pickle->data()), static_cast<size_t>(pickle->bytes())};
}

// f(bytes) may throw an InputError, nothing else; undamaged inputs must pass.
template <class F>
void expect_success_or_input_error(const std::vector<std::string>& corpus, F f) {
    for (const std::string& whole : corpus) ASSERT_NO_THROW(f(whole));
    fuzz(corpus, kSeconds, 1, [&](const std::string& bytes) {
        try {
            f(bytes);
        } catch (const InputError& error) {
            EXPECT_NE(std::string(error.what()), "");
        }
    });
}

TEST(Fuzz, Safetensors) {
    std::string path = fresh_folder() + "/x";
    write_safetensors(path, few_tensors(), {{"note", "text"}});
    expect_success_or_input_error({read_bytes(path)}, [&](const std::string& bytes) {
        write_bytes(path, bytes);
        sum_of(read_safetensors(path));
    });
}

TEST(Fuzz, SafetensorsHeader) {
    std::string path = fresh_folder() + "/x";
    write_safetensors(path, few_tensors(), {{"note", "text"}});
    std::string bytes = read_bytes(path);
    uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    auto data_bytes = static_cast<int64_t>(bytes.size() - 8 - length);
    expect_success_or_input_error({bytes.substr(8, length)}, [&](const std::string& header) {
        for (const auto& [name, entry] : parse_safetensors_header(header, data_bytes, "x").entries) {
            ASSERT_LE(entry.end, data_bytes);
            ASSERT_EQ(entry.end - entry.begin, entry.shape.numel() * size_of(entry.dtype));
        }
    });
}

TEST(Fuzz, Pth) {
    std::string path = fresh_folder() + "/x";
    write_pth(path, few_tensors(), {{"note", "text"}});
    expect_success_or_input_error({read_bytes(path)}, [&](const std::string& bytes) {
        write_bytes(path, bytes);
        sum_of(read_pth(path));
    });
}

// The pickle alone is damaged: its storages stay whole, so more of it is understood.
TEST(Fuzz, PthPickle) {
    std::string path = fresh_folder() + "/x";
    write_pth(path, few_tensors(), {{"note", "text"}});
    std::string pickle = pickle_of(path);
    expect_success_or_input_error({pickle}, [&](const std::string& bytes) {
        {
            AtomicFile file(path);
            ZipWriter zip(file);
            zip.add("archive/data.pkl", bytes);
            for (const char* key : {"0", "1", "2", "3", "4"})
                zip.add(join("archive/data/", key), std::string(24, 'x'));
            zip.finish();
            file.commit();
        }
        sum_of(read_pth(path));
    });
}

TEST(Fuzz, Json) {
    std::string path = fresh_folder() + "/x";
    expect_success_or_input_error(
        {R"({"a": [1, -2.5e3, null], "lambda": -Infinity, "text": "a\u00e9 \" NaN"})"},
        [&](const std::string& bytes) {
            write_bytes(path, bytes);
            read_json_text(path);
        });
}

}  // namespace
