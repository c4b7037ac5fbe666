#include "ops/choices.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/check.h"
#include "core/hash.h"

namespace sana {

namespace {

namespace fs = std::filesystem;

constexpr const char* kHeading = "sana kernel choices 1\n";
constexpr const char* kSum = "sha256 ";
constexpr uintmax_t kLargest = 4 << 20;

std::string setting() {
    const char* value = std::getenv("SANA_KERNEL_CACHE");
    return value == nullptr ? "" : value;
}

void note(const std::string& text) { std::fprintf(stderr, "note: %s\n", text.c_str()); }

}  // namespace

Choices::Choices(std::string path) : path_(std::move(path)) {
    std::error_code error;
    if (path_.empty() || !fs::exists(path_, error)) return;
    std::optional<Map> found = read(path_);
    if (found) {
        known_ = std::move(*found);
    } else {
        note(join(path_, " is damaged or unreadable and is ignored; kernels are timed anew"));
    }
}

std::optional<Choices::Map> Choices::read(const std::string& path) {
    std::error_code error;
    uintmax_t size = fs::file_size(path, error);
    if (error || size > kLargest) return std::nullopt;
    std::ifstream file(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(file), {}};
    if (!file || !text.starts_with(kHeading)) return std::nullopt;
    size_t sum = text.rfind(kSum);
    if (sum == std::string::npos || text.substr(sum) != kSum + sha256_hex(text.substr(0, sum)) + "\n")
        return std::nullopt;
    Map map;
    std::istringstream lines(text.substr(0, sum));
    std::string line;
    std::getline(lines, line);
    while (std::getline(lines, line)) {
        size_t tab = line.find('\t');
        if (tab == std::string::npos) return std::nullopt;
        map[line.substr(0, tab)] = line.substr(tab + 1);
    }
    return map;
}

std::optional<std::string> Choices::find(const std::string& key) const {
    std::lock_guard lock(mutex_);
    auto it = known_.find(key);
    return it == known_.end() ? std::nullopt : std::optional(it->second);
}

void Choices::put(const std::string& key, const std::string& value) {
    check((key + value).find_first_of("\t\n") == std::string::npos,
          "a kernel choice of several lines: ", key);
    std::lock_guard lock(mutex_);
    if (!path_.empty()) {
        if (std::optional<Map> others = read(path_)) known_.merge(*others);
    }
    known_[key] = value;
    if (path_.empty()) return;
    std::string text = kHeading;
    for (const auto& [k, v] : known_) text += k + '\t' + v + '\n';
    text += kSum + sha256_hex(text) + '\n';
    std::string temporary = join(path_, '.', static_cast<int64_t>(getpid()), ".new");
    std::error_code error;
    fs::create_directories(fs::path(path_).parent_path(), error);
    std::ofstream file(temporary, std::ios::binary);
    file << text;
    file.close();
    if (file) fs::rename(temporary, path_, error);
    if ((!file || error) && !noted_) {
        noted_ = true;
        fs::remove(temporary, error);
        note(join(path_,
                  " cannot be written; kernels are timed again by every run (SANA_KERNEL_CACHE names "
                  "another folder)"));
    }
}

std::optional<std::string> choices_folder() {
    std::string wanted = setting();
    if (wanted == "memory") return std::nullopt;
    if (!wanted.empty()) return wanted;
    if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != 0)
        return std::string(cache) + "/sana";
    if (const char* home = std::getenv("HOME"); home != nullptr && *home != 0)
        return std::string(home) + "/.cache/sana";
    return std::nullopt;
}

bool choices_wanted() { return setting() != "off"; }

}  // namespace sana
