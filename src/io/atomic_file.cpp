#include "io/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "core/check.h"

namespace sana {

namespace {

[[noreturn]] void fail_write(const std::string& path, int error) {
    switch (error) {
        case ENOENT: fail_input(path, ": cannot be written: its folder does not exist: make it first");
        case ENOTDIR: fail_input(path, ": cannot be written: a part of the path is a file, not a folder");
        case EACCES:
        case EPERM: fail_input(path, ": cannot be written: no permission in its folder");
        case EROFS: fail_input(path, ": cannot be written: the file system is read-only");
        case ENAMETOOLONG: fail_input(path, ": cannot be written: the name is too long");
        case ENOSPC:
            fail_input(path, ": cannot be written: the disk is full: free space or choose another folder");
        case EDQUOT: fail_input(path, ": cannot be written: the disk quota is used up");
        case EFBIG:
            fail_input(path,
                       ": cannot be written: larger than this file system or the file-size limit allows");
        default: fail_input(path, ": cannot be written: ", std::strerror(error));
    }
}

std::string resolved(const std::string& path) {
    std::error_code error;
    if (!std::filesystem::is_symlink(path, error)) return path;
    std::filesystem::path real = std::filesystem::canonical(path, error);
    return error ? path : real.string();
}

std::string folder_of(const std::string& path) {
    std::string folder = std::filesystem::path(path).parent_path().string();
    return folder.empty() ? "." : folder;
}

}  // namespace

AtomicFile::AtomicFile(const std::string& path) : target_(resolved(path)) {
    check_input(!path.empty() && path.back() != '/', path.empty() ? "an empty path" : path,
                ": is not a file name");
    struct stat status {};
    if (::stat(target_.c_str(), &status) == 0) {
        check_input(!S_ISDIR(status.st_mode), path, ": is a folder, a file is to be written there");
        check_input(S_ISREG(status.st_mode), path,
                    ": is a device or a pipe, a regular file is to be written there");
    }
    static std::atomic<uint64_t> counter{0};
    do {
        temporary_ = join(target_, ".tmp-", int64_t{::getpid()}, "-", counter.fetch_add(1));
        fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (fd_ < 0 && errno == EEXIST);
    if (fd_ < 0) fail_write(path, errno);
}

AtomicFile::~AtomicFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, int64_t bytes) {
    constexpr int64_t kLargest = int64_t{1} << 30;  // one write() moves at most 2 GiB
    const char* p = static_cast<const char*>(data);
    while (bytes > 0) {
        ssize_t n = ::write(fd_, p, static_cast<size_t>(std::min(bytes, kLargest)));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail_write(target_, errno);
        p += n;
        bytes -= n;
        written_ += n;
    }
}

void AtomicFile::commit() {
    check(fd_ >= 0, target_, ": committed twice");
    // Some network and in-memory file systems have nothing to sync and say EINVAL.
    if (::fsync(fd_) != 0 && errno != EINVAL) fail_write(target_, errno);
    int fd = fd_;
    fd_ = -1;
    if (::close(fd) != 0) fail_write(target_, errno);
    if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail_write(target_, errno);
    temporary_.clear();
    // The rename itself is durable once the folder is synced; a file system that cannot sync folders loses only that.
    int folder = ::open(folder_of(target_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0) {
        ::fsync(folder);
        ::close(folder);
    }
}

}  // namespace sana
