// A file mapped into memory, and pieces of it as tensor storage.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/memory.h"

namespace sana {

// The whole of a regular file. The mapping is private: pages come from the page cache when they are touched and can be
// dropped again; a page that is written to becomes this process's own, the file stays as it is.
class MappedFile : public Storage {
public:
    // InputError when the file is missing, a folder, not a regular file, not readable, or empty.
    static std::shared_ptr<MappedFile> open(const std::string& path);
    ~MappedFile() override;

    const std::string& path() const { return path_; }
    std::string_view text() const {
        return {reinterpret_cast<const char*>(data()), static_cast<size_t>(bytes())};
    }

private:
    MappedFile(void* data, int64_t bytes, std::string path)
        : Storage(data, bytes, kCpu), path_(std::move(path)) {}

    std::string path_;
};

// Bytes begin .. begin + bytes of the file as a storage of its own, which keeps the mapping alive.
StoragePtr slice_of(const std::shared_ptr<MappedFile>& file, int64_t begin, int64_t bytes);

}  // namespace sana
