// Writing a file so that its path shows either the old content or the whole new one, also after a crash.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sana {

// Writes to a temporary file in the folder of the target; commit() syncs it to the disk and renames it. Without a
// commit the destructor removes the temporary. What stands in the way (a missing folder, permissions, a full disk) is
// an InputError that names the path and the cause. A target that is a symbolic link keeps it: the file it points to
// is replaced.
class AtomicFile {
public:
    explicit AtomicFile(const std::string& path);
    ~AtomicFile();
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;

    void write(const void* data, int64_t bytes);
    void write(std::string_view text) { write(text.data(), static_cast<int64_t>(text.size())); }
    int64_t written() const { return written_; }
    void commit();

private:
    std::string target_, temporary_;
    int fd_ = -1;
    int64_t written_ = 0;
};

}  // namespace sana
