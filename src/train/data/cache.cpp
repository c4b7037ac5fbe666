#include "train/data/cache.h"

#include "core/hash.h"
#include "io/safetensors.h"
#include "io/text_file.h"

namespace sana {

TensorCache::TensorCache(std::string folder, std::string fingerprint,
                         std::function<void(const std::string&)> report)
    : folder_(std::move(folder)), fingerprint_(std::move(fingerprint)), report_(std::move(report)) {
    if (!report_) report_ = [](const std::string&) {};
}

std::string TensorCache::file_of(const std::string& key) const {
    std::string name = sha256_hex(key + '\n' + fingerprint_);
    return folder_ + "/" + name.substr(0, 2) + "/" + name.substr(2, 38) + ".safetensors";
}

std::optional<TensorMap> TensorCache::find(const std::string& key) {
    std::string file = file_of(key);
    if (file_exists(file)) {
        try {
            Checkpoint kept = read_safetensors(file);
            // Two keys of one name are beyond belief, a file put there by hand is not.
            if (kept.metadata["key"] == key && kept.metadata["fingerprint"] == fingerprint_) {
                ++hits_;
                return std::move(kept.tensors);
            }
        } catch (const InputError& error) {
            report_(join("a kept file is made anew: ", error.what()));
        }
    }
    ++misses_;
    return {};
}

void TensorCache::keep(const std::string& key, const TensorMap& tensors) {
    if (full_) return;
    try {
        std::string file = file_of(key);
        make_folders(parent_folder(file));
        write_safetensors(file, tensors, {{"key", key}, {"fingerprint", fingerprint_}});
    } catch (const InputError& error) {
        if (!full_.exchange(true)) report_(join("nothing more is kept in ", folder_, ": ", error.what()));
    }
}

TensorMap TensorCache::get(const std::string& key, const std::function<TensorMap()>& make) {
    if (std::optional<TensorMap> kept = find(key)) return std::move(*kept);
    TensorMap made = make();
    keep(key, made);
    return made;
}

}  // namespace sana
