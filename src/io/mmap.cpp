#include "io/mmap.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/check.h"

namespace sana {

namespace {

class Slice : public Storage {
public:
    Slice(std::shared_ptr<MappedFile> file, int64_t begin, int64_t bytes)
        : Storage(file->data() + begin, bytes, kCpu), file_(std::move(file)) {}

private:
    std::shared_ptr<MappedFile> file_;
};

struct Descriptor {
    int fd;
    ~Descriptor() { ::close(fd); }
};

std::string explain(int error) {
    switch (error) {
        case ENOENT: return "there is no such file: check the path";
        case ENOTDIR: return "a part of the path is a file, not a folder: check the path";
        case EACCES:
        case EPERM: return "no permission to read it: change its permissions or the user";
        case EMFILE:
        case ENFILE: return "too many files are open: raise the limit (ulimit -n)";
        case ELOOP: return "its symbolic links lead in a circle";
        case ENAMETOOLONG: return "the path is too long";
        default: return std::strerror(error);
    }
}

}  // namespace

std::shared_ptr<MappedFile> MappedFile::open(const std::string& path) {
    // Non-blocking, or a named pipe would wait for a writer.
    int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) fail_input(path, ": cannot be read: ", explain(errno));
    Descriptor descriptor{fd};
    struct stat status {};
    if (::fstat(fd, &status) != 0) fail_input(path, ": cannot be read: ", explain(errno));
    check_input(!S_ISDIR(status.st_mode), path, ": is a folder, a file is needed here");
    check_input(S_ISREG(status.st_mode), path, ": is a device or a pipe, a regular file is needed here");
    check_input(status.st_size > 0, path, ": the file is empty: download or write it again");
    void* data = ::mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    if (data == MAP_FAILED) {
        fail(path, ": ", int64_t{status.st_size}, " bytes cannot be mapped: ", std::strerror(errno));
    }
    return std::shared_ptr<MappedFile>(new MappedFile(data, status.st_size, path));
}

MappedFile::~MappedFile() { ::munmap(data(), static_cast<size_t>(bytes())); }

StoragePtr slice_of(const std::shared_ptr<MappedFile>& file, int64_t begin, int64_t bytes) {
    check(begin >= 0 && bytes >= 0 && begin <= file->bytes() && bytes <= file->bytes() - begin, file->path(),
          ": bytes ", begin, " + ", bytes, " are outside the file of ", file->bytes());
    return std::make_shared<Slice>(file, begin, bytes);
}

}  // namespace sana
