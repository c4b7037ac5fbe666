// Small tools for the tests of file formats: folders of their own, raw files, the message of an InputError.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "core/check.h"
#include "core/tensor.h"
#include "folders.h"

namespace sana::test {

// An empty folder named after the running test.
inline std::string fresh_folder() {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    std::string path = ::testing::TempDir() + "sana_io_" + info->test_suite_name() + "_" + info->name();
    std::filesystem::remove_all(path);
    std::filesystem::create_directories(path);
    return path;
}

inline std::string golden(const std::string& name) { return golden_folder() + "/" + name; }

inline std::string read_bytes(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_bytes(const std::string& path, const std::string& bytes) {
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    ASSERT_TRUE(out.good()) << path;
}

// The message of the InputError that f throws; "" (and a failure) when it throws none.
template <class F>
std::string input_error(F&& f) {
    try {
        f();
    } catch (const InputError& error) {
        return error.what();
    }
    ADD_FAILURE() << "no InputError was thrown";
    return "";
}

inline bool same_bytes(const Tensor& a, const Tensor& b) {
    Tensor x = a.contiguous(), y = b.contiguous();
    return x.dtype() == y.dtype() && x.shape() == y.shape() &&
           (x.bytes() == 0 || std::memcmp(x.raw(), y.raw(), static_cast<size_t>(x.bytes())) == 0);
}

inline ::testing::AssertionResult same_tensors(const TensorMap& a, const TensorMap& b) {
    for (const auto& [name, tensor] : a) {
        auto found = b.find(name);
        if (found == b.end()) return ::testing::AssertionFailure() << name << " is missing";
        if (!same_bytes(tensor, found->second)) return ::testing::AssertionFailure() << name << " differs";
        if (found->second.name() != name) return ::testing::AssertionFailure() << name << " has no name";
    }
    if (a.size() != b.size())
        return ::testing::AssertionFailure() << a.size() << " and " << b.size() << " tensors";
    return ::testing::AssertionSuccess();
}

// One tensor of every dtype with all bytes set to something, and a scalar, an empty one and a strided one.
inline TensorMap assorted_tensors() {
    TensorMap tensors;
    int seed = 0;
    for (DType dtype : {DType::F32, DType::F64, DType::BF16, DType::F16, DType::F8E4M3, DType::F8E5M2,
                        DType::I64, DType::I32, DType::I16, DType::I8, DType::U8, DType::Bool}) {
        Tensor tensor = empty({3, 5}, dtype);
        auto* bytes = static_cast<uint8_t*>(tensor.raw());
        for (int64_t i = 0; i < tensor.bytes(); ++i) {
            bytes[i] = static_cast<uint8_t>(dtype == DType::Bool ? i % 2 : (i * 37 + seed) % 251);
        }
        tensors["a." + std::string(name_of(dtype))] = tensor;
        ++seed;
    }
    tensors["scalar"] = from_vector<float>({2.5f}, {});
    tensors["empty"] = empty({4, 0, 2}, DType::F32);
    std::vector<float> values(24);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
    tensors["strided \"quoted\" \xc3\xa9"] = from_vector(values, {4, 6}).cols_slice(1, 3);
    return tensors;
}

}  // namespace sana::test
