// Reference files (folders.h says where they are), their configs, and comparison that names the first tensor out of its bound.
// Configs and shapes are read from the files. SANA_DEVICE (device.h) says where models run; what they give is compared in the
// host's memory.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "device.h"
#include "folders.h"
#include "io/safetensors.h"
#include "models/json_config.h"

namespace sana::test {

// Every file of the folder whose name starts so; a family may have several configurations.
inline std::vector<std::string> golden_files(const std::string& start,
                                             const std::string& end = ".safetensors",
                                             const std::string& folder = golden_folder()) {
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        std::string name = entry.path().filename().string();
        if (name.starts_with(start) && name.ends_with(end)) files.push_back(entry.path().string());
    }
    std::sort(files.begin(), files.end());
    EXPECT_FALSE(files.empty()) << "no " << start << "*" << end << " in " << folder;
    return files;
}

// The files of the repository, whatever SANA_GOLDENS says: for bf16, whose bounds were set by measuring these models. Other
// models of such small widths may round a little more or less.
inline std::vector<std::string> own_golden_files(const std::string& start) {
    return golden_files(start, ".safetensors", own_golden_folder());
}

struct Golden {
    std::string path;
    Checkpoint file;

    explicit Golden(const std::string& p) : path(p), file(read_safetensors(p)) {}

    JsonConfig config() const { return JsonConfig(file.metadata.at("config"), path + " config"); }
    const Tensor& at(const std::string& key) const {
        auto it = file.tensors.find(key);
        check_input(it != file.tensors.end(), path, ": has no ", key);
        return it->second;
    }
    bool has(const std::string& key) const { return file.tensors.count(key) != 0; }
    // The tensors under a prefix, without it ("w.").
    TensorMap under(const std::string& prefix) const {
        TensorMap out;
        for (const auto& [key, tensor] : file.tensors) {
            if (key.starts_with(prefix)) out[key.substr(prefix.size())] = tensor;
        }
        return out;
    }
};

// fp32, and fp64 where the device has it: the CPU.
inline std::vector<DType> exact_dtypes() {
    if (test_device() == kCpu) return {DType::F32, DType::F64};
    return {DType::F32};
}

// For two ways to the same result: fp64 shows that they are the same, fp32 that they stay so up to sums of another order.
inline double same_bound(DType dtype) { return dtype == DType::F64 ? 1e-12 : 5e-6; }

// Ends a test that is about fp64 or about the CPU itself.
#define SANA_CPU_ONLY(reason) \
    if (test_device() != kCpu) GTEST_SKIP() << reason

inline const char* const kNoFp64 = "only the CPU computes in fp64";

// Fails when ||actual - expected|| > bound * ||expected||.
inline bool expect_close(const Tensor& actual, const Tensor& expected, double bound,
                         const std::string& what) {
    if (!(actual.shape() == expected.shape())) {
        ADD_FAILURE() << what << ": " << join(actual, " against ", expected);
        return false;
    }
    double error = relative_l2(actual, expected);
    ::testing::Test::RecordProperty(what, std::to_string(error));
    EXPECT_LE(error, bound) << what << " leaves its bound: relative L2 " << error;
    return error <= bound;
}

}  // namespace sana::test
