#include "io/text_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/check.h"

namespace sana {

namespace fs = std::filesystem;

bool file_exists(const std::string& path) {
    std::error_code ignored;
    return fs::exists(path, ignored);
}

bool is_folder(const std::string& path) {
    std::error_code ignored;
    return fs::is_directory(path, ignored);
}

std::string parent_folder(const std::string& path) {
    fs::path parent = fs::path(path).parent_path();
    return parent.empty() ? "." : parent.string();
}

void make_folders(const std::string& path) {
    std::error_code error;
    fs::create_directories(path, error);
    check_input(!error && is_folder(path), path, ": the folder cannot be created: ", error.message());
}

std::string read_text_file(const std::string& path, int64_t max_bytes) {
    check_input(file_exists(path), path, ": no such file");
    check_input(!is_folder(path), path, ": is a folder, a file is expected");
    std::ifstream in(path, std::ios::binary | std::ios::ate);
    check_input(in.good(), path, ": cannot be read: ", std::strerror(errno));
    int64_t bytes = static_cast<int64_t>(in.tellg());
    check_input(bytes >= 0 && bytes <= max_bytes, path, ": has ", bytes, " bytes, more than the ", max_bytes,
                " that such a file may have");
    std::string text(static_cast<size_t>(bytes), '\0');
    in.seekg(0);
    in.read(text.data(), bytes);
    check_input(in.gcount() == bytes, path, ": only ", in.gcount(), " of ", bytes, " bytes could be read");
    return text;
}

std::string read_json_text(const std::string& path) {
    std::string text = read_text_file(path), out;
    bool quoted = false;
    for (size_t i = 0; i < text.size();) {
        if (quoted) {
            if (text[i] == '\\' && i + 1 < text.size())
                out += text[i++];
            else if (text[i] == '"')
                quoted = false;
            out += text[i++];
            continue;
        }
        bool replaced = false;
        for (std::string_view word : {"-Infinity", "Infinity", "NaN"}) {
            if (text.compare(i, word.size(), word) == 0) {
                out += "null";
                i += word.size();
                replaced = true;
                break;
            }
        }
        if (replaced) continue;
        quoted = text[i] == '"';
        out += text[i++];
    }
    return out;
}

AtomicFile::AtomicFile(const std::string& path) : path_(path), temporary_(join(path, ".part", getpid())) {
    file_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file_ < 0) fail_with_cause("cannot be written");
}

AtomicFile::~AtomicFile() {
    if (file_ >= 0) {
        close(file_);
        unlink(temporary_.c_str());
    }
}

void AtomicFile::fail_with_cause(const char* what) {
    std::string cause = std::strerror(errno);
    bool full = errno == ENOSPC || errno == EFBIG || errno == EDQUOT;
    throw InputError(
        join(path_, ": ", what, ": ", cause, full ? "; free some space or choose another place" : ""));
}

void AtomicFile::write(const void* data, size_t bytes) {
    const char* p = static_cast<const char*>(data);
    while (bytes > 0) {
        ssize_t written = ::write(file_, p, std::min(bytes, size_t{1} << 30));
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) fail_with_cause("writing failed");
        p += written;
        bytes -= static_cast<size_t>(written);
    }
}

void AtomicFile::commit() {
    if (fsync(file_) != 0 && errno != EINVAL) fail_with_cause("writing failed");
    if (close(file_) != 0) {
        file_ = -1;
        unlink(temporary_.c_str());
        fail_with_cause("writing failed");
    }
    file_ = -1;
    if (rename(temporary_.c_str(), path_.c_str()) != 0) {
        int cause = errno;
        unlink(temporary_.c_str());
        errno = cause;
        fail_with_cause("cannot be replaced");
    }
}

void write_text_file(const std::string& path, const std::string& text) {
    AtomicFile file(path);
    file.write(text.data(), text.size());
    file.commit();
}

}  // namespace sana
