// Small text files.
#pragma once

#include <string>

namespace sana {

bool file_exists(const std::string& path);
bool is_folder(const std::string& path);
std::string parent_folder(const std::string& path);  // "." when there is none
void make_folders(const std::string& path);          // as mkdir -p

// The whole file; InputError when it is missing, unreadable or longer than max_bytes.
std::string read_text_file(const std::string& path, int64_t max_bytes = int64_t{64} << 20);

// A JSON file in which NaN, Infinity and -Infinity may stand as values (scheduler_config.json has one): they become null.
std::string read_json_text(const std::string& path);

// Writes to a temporary beside the file and renames it, so that a reader never sees half of it. Throws InputError that
// names the cause (no permission, disk full); the temporary is removed.
class AtomicFile {
public:
    explicit AtomicFile(const std::string& path);
    ~AtomicFile();
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;

    void write(const void* data, size_t bytes);
    void commit();

private:
    [[noreturn]] void fail_with_cause(const char* what);

    std::string path_, temporary_;
    int file_ = -1;
};
void write_text_file(const std::string& path, const std::string& text);

}  // namespace sana
