#include "train/data/first_look.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/hash.h"
#include "io/mmap.h"
#include "io/text_file.h"
#include "io/video.h"

namespace sana {

namespace {

namespace fs = std::filesystem;

bool has_extension(const std::string& path, std::initializer_list<const char*> list) {
    std::string extension = fs::path(path).extension().string();
    std::transform(extension.begin(), extension.end(), extension.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    return std::any_of(list.begin(), list.end(), [&](const char* one) { return extension == one; });
}

MediaFacts decoded(const std::string& path) {
    MediaFacts facts;
    try {
        auto file = MappedFile::open(path);
        Sha256 hash;
        hash.update(file->data(), static_cast<size_t>(file->bytes()));
        facts.hash = hash.hex();
        double shortest = 1e9, longest = 0;
        bool picture = is_picture_name(path);
        read_frames(path, [&](const Tensor& frame, double time) {
            if (facts.frames > 0) {
                shortest = std::min(shortest, time - facts.seconds);
                longest = std::max(longest, time - facts.seconds);
            }
            facts.height = frame.dim(0);
            facts.width = frame.dim(1);
            facts.seconds = time;
            ++facts.frames;
            return !picture;
        });
        // Time stamps are rounded to the container's clock, at worst to milliseconds.
        facts.variable = facts.frames > 2 && longest > 1.05 * shortest + 0.0021;
    } catch (const InputError& error) {
        facts.error = error.what();
    }
    return facts;
}

}  // namespace

bool is_picture_name(const std::string& path) {
    return has_extension(path, {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"});
}
bool is_video_name(const std::string& path) {
    return has_extension(
        path, {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif", ".y4m", ".mpg", ".mpeg", ".ts"});
}

FirstLook::FirstLook(std::string index) : index_(std::move(index)) {
    if (index_.empty() || !file_exists(index_)) return;
    nlohmann::json json = nlohmann::json::parse(read_text_file(index_), nullptr, false);
    if (!json.is_object()) return;
    for (const auto& [key, v] : json.items()) {
        if (!v.is_array() || v.size() != 7) continue;
        MediaFacts f;
        try {
            f = {v[0].get<int64_t>(), v[1].get<int64_t>(),     v[2].get<int64_t>(),    v[3].get<double>(),
                 v[4].get<bool>(),    v[5].get<std::string>(), v[6].get<std::string>()};
        } catch (const nlohmann::json::exception&) {
            continue;
        }
        known_[key] = f;
    }
}

MediaFacts FirstLook::look(const std::string& path) {
    std::error_code error;
    uintmax_t size = fs::file_size(path, error);
    MediaFacts facts;
    if (error) {
        facts.error = path + ": " + (fs::exists(path) ? "is no file" : "no such file");
        return facts;
    }
    auto time = fs::last_write_time(path, error).time_since_epoch().count();
    std::string key = join(path, '|', static_cast<int64_t>(size), '|', static_cast<int64_t>(time));
    {
        std::lock_guard lock(mutex_);
        if (auto it = known_.find(key); it != known_.end()) return it->second;
    }
    if (size == 0) {
        facts.error = path + ": is empty";
    } else {
        facts = decoded(path);
    }
    std::lock_guard lock(mutex_);
    known_[key] = facts;
    return facts;
}

void FirstLook::save() const {
    if (index_.empty()) return;
    nlohmann::json json = nlohmann::json::object();
    for (const auto& [key, f] : known_)
        json[key] = {f.frames, f.height, f.width, f.seconds, f.variable, f.hash, f.error};
    write_text_file(index_, json.dump(0, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

}  // namespace sana
