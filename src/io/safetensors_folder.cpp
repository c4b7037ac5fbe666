// Folders of safetensors: shards, their index, variants.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "core/check.h"
#include "io/describe.h"
#include "io/safetensors.h"
#include "io/text_file.h"

namespace sana {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr const char* kExtension = ".safetensors";

std::string shard_name(const std::string& base, size_t index, size_t count) {
    char numbers[32];
    std::snprintf(numbers, sizeof numbers, "-%05zu-of-%05zu", index, count);
    return base + numbers + kExtension;
}

std::string in_folder(const std::string& folder, const std::string& name) {
    return (fs::path(folder) / name).string();
}

// The names of the files in a folder, sorted.
std::vector<std::string> names_in(const std::string& folder) {
    check_input(file_exists(folder), folder, ": there is no such folder: check the path");
    check_input(is_folder(folder), folder, ": is a file, a folder is needed here");
    std::error_code error;
    std::vector<std::string> names;
    for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
        names.push_back(it->path().filename().string());
    }
    check_input(!error, folder, ": cannot be listed: ", error.message());
    std::sort(names.begin(), names.end());
    return names;
}

// Whether name is <base>-ddddd-of-ddddd.safetensors.
bool is_shard_of(const std::string& base, const std::string& name) {
    constexpr std::string_view kPattern = "-#####-of-#####.safetensors";
    if (name.size() != base.size() + kPattern.size() || !name.starts_with(base)) return false;
    return std::equal(
        kPattern.begin(), kPattern.end(), name.begin() + static_cast<std::ptrdiff_t>(base.size()),
        [](char pattern, char c) { return pattern == '#' ? c >= '0' && c <= '9' : pattern == c; });
}

// The file to read for the checkpoint base: a .safetensors file or an index; "" when there is none.
std::string pick(const std::string& folder, const std::string& base, const std::vector<std::string>& names) {
    std::set<std::string> present(names.begin(), names.end());
    for (const std::string& name : {base + kExtension, base + kExtension + ".index.json"}) {
        if (present.count(name) != 0) return name;
    }
    // <base>.<variant>.safetensors and <base>.safetensors.index.<variant>.json
    std::map<std::string, std::string> variants;
    auto collect = [&](const std::string& before, const std::string& after) {
        for (const std::string& name : names) {
            if (name.size() <= before.size() + after.size() || !name.starts_with(before) ||
                !name.ends_with(after))
                continue;
            std::string variant = name.substr(before.size(), name.size() - before.size() - after.size());
            if (variant.find('.') == std::string::npos) variants.emplace(variant, name);
        }
    };
    collect(base + ".", kExtension);
    collect(base + kExtension + ".index.", ".json");
    for (const char* preferred : {"bf16", "fp16", "fp32"}) {
        if (variants.count(preferred) != 0) return variants[preferred];
    }
    if (variants.size() > 1) {
        std::string list;
        for (const auto& [variant, name] : variants) list += (list.empty() ? "" : ", ") + name;
        fail_input(folder, ": several variants of ", base, " (", list, "): give the path of the one to read");
    }
    return variants.empty() ? "" : variants.begin()->second;
}

void remove_if_present(const std::string& path) {
    std::error_code error;
    fs::remove(path, error);
    check_input(!error, path, ": belongs to an earlier checkpoint and cannot be removed: ", error.message());
}

}  // namespace

Checkpoint read_shard_index(const std::string& index_path) {
    json index = json::parse(read_json_text(index_path));
    check_input(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object(),
                index_path, ": is not an index of shards: it has no object \"weight_map\"");
    std::map<std::string, std::string> shard_of;  // tensor -> shard
    std::set<std::string> shards, missing;
    std::string folder = parent_folder(index_path);
    for (const auto& [name, shard] : index["weight_map"].items()) {
        check_input(shard.is_string(), index_path, ": tensor ", in_quotes(name),
                    ": its shard is not given as text");
        std::string file = shard.get<std::string>();
        // Only names in the same folder: an index must not point at other files of the machine.
        check_input(!file.empty() && file != "." && file != ".." &&
                        file.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos,
                    index_path, ": tensor ", in_quotes(name), ": its shard ", in_quotes(file),
                    " is not a plain file name");
        shard_of[name] = file;
        shards.insert(file);
        if (!file_exists(in_folder(folder, file))) missing.insert(file);
    }
    if (!missing.empty()) {
        std::string list;
        for (const std::string& file : missing) list += (list.empty() ? "" : ", ") + file;
        fail_input(folder, ": ", missing.size(), " of the ", shards.size(), " shards that ",
                   fs::path(index_path).filename().string(), " lists are missing: ", list, ": download them");
    }
    Checkpoint all;
    for (const std::string& file : shards) {
        std::string path = in_folder(folder, file);
        Checkpoint part = read_safetensors(path);
        for (auto& [name, tensor] : part.tensors) {
            auto promised = shard_of.find(name);
            if (promised == shard_of.end()) {
                fail_input(path, ": tensor ", in_quotes(name), " is not in ", index_path,
                           ": index and shards are of different checkpoints: download them again");
            }
            if (promised->second != file) continue;  // the index decides between copies
            all.tensors.emplace(name, tensor);
            all.files.emplace(name, path);
        }
        all.metadata.merge(part.metadata);
    }
    for (const auto& [name, file] : shard_of) {
        if (all.tensors.count(name) == 0) {
            fail_input(in_folder(folder, file), ": tensor ", in_quotes(name), " is not there, but ",
                       index_path,
                       " promises it: index and shards are of different checkpoints: download them again");
        }
    }
    return all;
}

Checkpoint read_folder(const std::string& folder, const std::string& base) {
    std::vector<std::string> names = names_in(folder);
    std::string name = pick(folder, base, names);
    if (!name.empty()) {
        std::string path = in_folder(folder, name);
        return name.ends_with(".json") ? read_shard_index(path) : read_safetensors(path);
    }
    std::string list;
    for (const std::string& present : names) {
        check_input(!is_shard_of(base, present), folder, ": has the shard ", present, ", but no ", base,
                    ".safetensors.index.json, which lists the shards: download it too");
        if (list.size() < 300) list += (list.empty() ? "" : ", ") + present;
    }
    fail_input(folder, ": has no ", base, ".safetensors (and no shards or variant of it); it holds ",
               list.empty() ? "nothing" : list);
}

void write_sharded(const std::string& folder, const std::string& base, const TensorMap& tensors,
                   int64_t max_bytes, const Metadata& metadata) {
    check_input(max_bytes > 0, "the size of a shard must be positive, it is ", max_bytes);
    make_folders(folder);
    std::vector<TensorMap> parts(1);
    int64_t bytes = 0, total = 0;
    for (const auto& [name, tensor] : tensors) {
        if (bytes + tensor.bytes() > max_bytes && !parts.back().empty()) {
            parts.emplace_back();
            bytes = 0;
        }
        parts.back().emplace(name, tensor);
        bytes += tensor.bytes();
        total += tensor.bytes();
    }

    std::set<std::string> written;
    if (parts.size() == 1) {
        written.insert(base + kExtension);
        write_safetensors(in_folder(folder, base + kExtension), tensors, metadata);
    } else {
        json map = json::object();
        for (size_t i = 0; i < parts.size(); ++i) {
            std::string file = shard_name(base, i + 1, parts.size());
            write_safetensors(in_folder(folder, file), parts[i], metadata);
            for (const auto& [name, tensor] : parts[i]) map[name] = file;
            written.insert(file);
        }
        // Last, so that an index never lists a shard that is not there.
        std::string index = base + kExtension + ".index.json";
        write_text_file(in_folder(folder, index),
                        json{{"metadata", {{"total_size", total}}}, {"weight_map", map}}.dump(2) + "\n");
        written.insert(index);
    }
    for (const std::string& name : names_in(folder)) {
        bool ours =
            name == base + kExtension || name == base + kExtension + ".index.json" || is_shard_of(base, name);
        if (ours && written.count(name) == 0) remove_if_present(in_folder(folder, name));
    }
}

}  // namespace sana
