// Tensors that are expensive to make (latents, text states) kept on the disk by what they were made of.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>

#include "core/tensor.h"

namespace sana {

// The name of an entry is a hash of its key and of the maker's fingerprint (of an encoder's weights, say): content or maker
// that changes finds nothing under its new name and is computed anew. Nothing here ends a run: a file that cannot be read
// is reported and computed anew; when one cannot be written (a full disk), that is reported once and nothing more is kept.
class TensorCache {
public:
    TensorCache(std::string folder, std::string fingerprint,
                std::function<void(const std::string&)> report = {});

    // May be called from several threads, all three.
    std::optional<TensorMap> find(const std::string& key);
    void keep(const std::string& key, const TensorMap& tensors);
    // What is kept under a key, else what make() gives, which is kept.
    TensorMap get(const std::string& key, const std::function<TensorMap()>& make);

    int64_t hits() const { return hits_; }
    int64_t misses() const { return misses_; }

private:
    std::string file_of(const std::string& key) const;

    std::string folder_, fingerprint_;
    std::function<void(const std::string&)> report_;
    std::atomic<bool> full_{false};
    std::atomic<int64_t> hits_{0}, misses_{0};
};

}  // namespace sana
