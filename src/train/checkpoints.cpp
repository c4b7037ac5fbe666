#include "train/checkpoints.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/safetensors.h"
#include "io/text_file.h"

namespace sana {

namespace {

namespace fs = std::filesystem;

constexpr int64_t kShard = int64_t{16} << 20;

std::string name_of_step(int64_t step) {
    char text[32];
    std::snprintf(text, sizeof text, "step-%08lld", static_cast<long long>(step));
    return text;
}

// Names of complete checkpoints, oldest first.
std::vector<std::string> complete(const std::string& folder) {
    std::vector<std::string> out;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
        std::string name = entry.path().filename().string();
        bool digits = name.size() == 13 && name.starts_with("step-") &&
                      std::all_of(name.begin() + 5, name.end(), [](char c) { return c >= '0' && c <= '9'; });
        if (digits && entry.is_directory()) out.push_back(name);
    }
    std::sort(out.begin(), out.end());
    return out;
}

void sync_folder(const std::string& folder) {
    int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY);
    if (fd < 0) return;  // some file systems do not open folders; the rename is then as safe as they make it
    fsync(fd);
    close(fd);
}

}  // namespace

Checkpoints::Checkpoints(std::string folder, int64_t keep, bool small)
    : folder_(std::move(folder)), keep_(std::max<int64_t>(1, keep)), small_(small) {}

std::string Checkpoints::save(const RunPosition& at, const TensorMap& state) {
    std::string target = folder_ + "/" + name_of_step(at.step), partial = target + ".partial";
    std::error_code error;
    fs::remove_all(partial, error);
    make_folders(partial);
    try {
        TensorMap host;
        for (const auto& [name, tensor] : state) {
            bool moment = !name.starts_with("weights.");
            host[name] = (small_ && moment ? tensor.to(DType::BF16) : tensor).to(kCpu);
        }
        write_sharded(partial, "state", host, kShard);
        nlohmann::ordered_json json{{"step", at.step}, {"position", at.position}, {"identity", at.identity}};
        write_text_file(partial + "/run.json", json.dump(2) + "\n");
        sync_folder(partial);
        fs::remove_all(target, error);
        fs::rename(partial, target, error);
        check_input(!error, target, ": cannot be named so: ", error.message());
        sync_folder(folder_);
    } catch (...) {
        fs::remove_all(partial, error);
        throw;
    }
    std::vector<std::string> all = complete(folder_);
    for (size_t i = 0; i + static_cast<size_t>(keep_) < all.size(); ++i)
        fs::remove_all(folder_ + "/" + all[i], error);
    return target;
}

std::string Checkpoints::newest_folder() const {
    std::vector<std::string> all = complete(folder_);
    return all.empty() ? std::string() : folder_ + "/" + all.back();
}

std::optional<Saved> Checkpoints::newest() const {
    std::string folder = newest_folder();
    if (folder.empty()) return {};
    Saved out;
    out.folder = folder;
    std::string path = folder + "/run.json";
    auto json = nlohmann::json::parse(read_text_file(path), nullptr, false);
    auto number = [&](const char* key) {
        check_input(json.is_object() && json.contains(key) && json[key].is_number_integer(), path,
                    ": has no whole number '", key,
                    "'; the checkpoint is damaged, remove its folder to go on from the one before");
        return json[key].get<int64_t>();
    };
    out.at.step = number("step");
    out.at.position = number("position");
    if (json.contains("identity"))
        out.at.identity = json["identity"].get<std::map<std::string, std::string>>();
    out.tensors = read_folder(folder, "state").tensors;
    return out;
}

void restore(const Saved& saved, const TensorMap& state) {
    std::string wrong;
    for (const auto& [name, tensor] : state) {
        auto it = saved.tensors.find(name);
        if (it == saved.tensors.end()) {
            wrong += join("\n  missing: ", name);
        } else if (!(it->second.shape() == tensor.shape())) {
            wrong += join("\n  ", name, " is ", it->second.shape(), " there and ", tensor.shape(), " here");
        }
    }
    for (const auto& [name, tensor] : saved.tensors) {
        if (state.count(name) == 0) wrong += join("\n  unknown: ", name);
    }
    check_input(wrong.empty(), saved.folder, ": does not belong to this run:", wrong);
    for (const auto& [name, tensor] : state) {
        Tensor place = tensor;
        copy(saved.tensors.at(name), place);
    }
}

}  // namespace sana
