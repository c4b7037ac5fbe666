#include <zip.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "core/check.h"
#include "io/describe.h"
#include "io/zip.h"

namespace sana {

namespace {

constexpr const char* kDamaged = ": the file is truncated or damaged: download it again";

// Little-endian fields of the mapping; every read is checked against its end.
class Fields {
public:
    explicit Fields(const MappedFile& file) : file_(file) {}

    template <class T>
    T get(int64_t at) const {
        need(at, sizeof(T));
        T value;
        std::memcpy(&value, file_.data() + at, sizeof(T));
        return value;
    }
    std::string_view text(int64_t at, int64_t bytes) const {
        need(at, bytes);
        return file_.text().substr(static_cast<size_t>(at), static_cast<size_t>(bytes));
    }
    int64_t offset(int64_t at) const {
        auto value = get<uint64_t>(at);
        check_input(value <= static_cast<uint64_t>(file_.bytes()), file_.path(),
                    ": the zip directory names byte ", value, " of a file of ", file_.bytes(), kDamaged);
        return static_cast<int64_t>(value);
    }
    void need(int64_t at, int64_t bytes) const {
        check_input(at >= 0 && bytes <= file_.bytes() && at <= file_.bytes() - bytes, file_.path(),
                    ": the zip directory points behind the end of the file (", file_.bytes(), " bytes)",
                    kDamaged);
    }

private:
    const MappedFile& file_;
};

constexpr uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50,
                   kLocator64 = 0x07064b50;
constexpr uint32_t kSee64 = 0xffffffff;
constexpr int64_t kEndBytes = 22, kCentralBytes = 46, kLocalBytes = 30, kLocator64Bytes = 20;

struct Directory {
    int64_t begin = 0, entries = 0;
};

Directory find_directory(const MappedFile& file) {
    Fields fields(file);
    constexpr int64_t kLongestComment = 65535;
    int64_t last = file.bytes() - kEndBytes;
    for (int64_t at = last; at >= std::max<int64_t>(0, last - kLongestComment); --at) {
        if (fields.get<uint32_t>(at) != kEnd ||
            at + kEndBytes + fields.get<uint16_t>(at + 20) != file.bytes())
            continue;
        Directory directory{fields.get<uint32_t>(at + 16), fields.get<uint16_t>(at + 10)};
        bool see64 = directory.begin == kSee64 || directory.entries == 0xffff;
        if (see64 && at >= kLocator64Bytes && fields.get<uint32_t>(at - kLocator64Bytes) == kLocator64) {
            int64_t end64 = fields.offset(at - kLocator64Bytes + 8);
            check_input(fields.get<uint32_t>(end64) == kEnd64, file.path(),
                        ": the zip64 directory is not where it should be", kDamaged);
            directory = {fields.offset(end64 + 48), fields.offset(end64 + 32)};
        }
        return directory;
    }
    fail_input(file.path(), ": a zip file without a directory at its end", kDamaged);
}

struct ZipCloser {
    void operator()(zip_t* archive) const { zip_discard(archive); }
    void operator()(zip_file_t* entry) const { zip_fclose(entry); }
};

}  // namespace

ZipReader::ZipReader(std::shared_ptr<MappedFile> file) : file_(std::move(file)) {
    Fields fields(*file_);
    Directory directory = find_directory(*file_);
    int64_t at = directory.begin;
    for (int64_t i = 0; i < directory.entries; ++i) {
        check_input(fields.get<uint32_t>(at) == kCentral, file_->path(), ": entry ", i,
                    " of the zip directory is not one", kDamaged);
        int64_t name_bytes = fields.get<uint16_t>(at + 28), extra_bytes = fields.get<uint16_t>(at + 30);
        int64_t comment_bytes = fields.get<uint16_t>(at + 32);
        Entry entry;
        entry.flags = fields.get<uint16_t>(at + 8);
        entry.method = fields.get<uint16_t>(at + 10);
        entry.packed = fields.get<uint32_t>(at + 20);
        entry.unpacked = fields.get<uint32_t>(at + 24);
        entry.header = fields.get<uint32_t>(at + 42);
        std::string name(fields.text(at + kCentralBytes, name_bytes));
        int64_t extra = at + kCentralBytes + name_bytes, extra_end = extra + extra_bytes;
        while (extra + 4 <= extra_end) {
            int64_t field = extra + 4, length = fields.get<uint16_t>(extra + 2);
            if (fields.get<uint16_t>(extra) == 1) {  // the 64-bit values, only of those that did not fit
                auto wide = [&](int64_t& value) {
                    if (value != kSee64) return;
                    check_input(field + 8 <= extra + 4 + length, file_->path(), ": zip entry ",
                                in_quotes(name), " lacks its 64-bit sizes", kDamaged);
                    auto number = fields.get<uint64_t>(field);
                    check_input(number <= static_cast<uint64_t>(INT64_MAX), file_->path(), ": zip entry ",
                                in_quotes(name), " has the impossible size ", number, kDamaged);
                    value = static_cast<int64_t>(number);
                    field += 8;
                };
                wide(entry.unpacked);
                wide(entry.packed);
                wide(entry.header);
            }
            extra += 4 + length;
        }
        check_input(entries_.emplace(name, entry).second, file_->path(), ": the zip entry ", in_quotes(name),
                    " is there twice: the file was written wrongly");
        at = extra_end + comment_bytes;
    }
}

std::vector<std::string> ZipReader::names() const {
    std::vector<std::string> names;
    for (const auto& [name, entry] : entries_) names.push_back(name);
    return names;
}

const ZipReader::Entry& ZipReader::at(const std::string& name) const {
    auto found = entries_.find(name);
    check_input(found != entries_.end(), file_->path(), ": the entry ", in_quotes(name),
                " is not in this zip file: the file is incomplete: download it again");
    return found->second;
}

StoragePtr ZipReader::read(const std::string& name) const {
    const Entry& entry = at(name);
    check_input((entry.flags & 1) == 0, file_->path(), ": the zip entry ", in_quotes(name),
                " is encrypted, which is not supported");
    if (entry.method != 0) return unpack(name, entry);
    Fields fields(*file_);
    check_input(fields.get<uint32_t>(entry.header) == kLocal, file_->path(), ": the zip entry ",
                in_quotes(name), " is not where the directory says", kDamaged);
    int64_t begin = entry.header + kLocalBytes + fields.get<uint16_t>(entry.header + 26) +
                    fields.get<uint16_t>(entry.header + 28);
    check_input(entry.packed == entry.unpacked, file_->path(), ": the zip entry ", in_quotes(name),
                " is stored, but its two sizes differ", kDamaged);
    fields.need(begin, entry.unpacked);
    return slice_of(file_, begin, entry.unpacked);
}

StoragePtr ZipReader::unpack(const std::string& name, const Entry& entry) const {
    // Deflate packs at most 1032 to 1; a larger claim would only make us ask for memory.
    constexpr int64_t kMostPacked = 1032, kSlack = 4096;
    check_input(entry.packed <= file_->bytes() && entry.unpacked / kMostPacked <= entry.packed + kSlack,
                file_->path(), ": the zip entry ", in_quotes(name), " claims to unpack ", entry.packed,
                " bytes to ", entry.unpacked, kDamaged);
    zip_error_t error;
    zip_error_init(&error);
    zip_source_t* source =
        zip_source_buffer_create(file_->data(), static_cast<zip_uint64_t>(file_->bytes()), 0, &error);
    check(source != nullptr, file_->path(), ": ", zip_error_strerror(&error));
    std::unique_ptr<zip_t, ZipCloser> archive(zip_open_from_source(source, ZIP_RDONLY, &error));
    if (archive == nullptr) {
        std::string message = zip_error_strerror(&error);
        zip_error_fini(&error);
        zip_source_free(source);
        fail_input(file_->path(), ": the zip entry ", in_quotes(name), " cannot be unpacked (", message, ")",
                   kDamaged);
    }
    zip_error_fini(&error);
    zip_int64_t index = zip_name_locate(archive.get(), name.c_str(), ZIP_FL_ENC_RAW);
    std::unique_ptr<zip_file_t, ZipCloser> packed;
    if (index >= 0) packed.reset(zip_fopen_index(archive.get(), static_cast<zip_uint64_t>(index), 0));
    if (packed == nullptr) {
        fail_input(file_->path(), ": the zip entry ", in_quotes(name), " cannot be unpacked (",
                   zip_strerror(archive.get()), ")", kDamaged);
    }
    StoragePtr storage = allocate(entry.unpacked, kCpu);
    int64_t done = 0;
    while (done < entry.unpacked) {
        zip_int64_t n =
            zip_fread(packed.get(), storage->data() + done, static_cast<zip_uint64_t>(entry.unpacked - done));
        if (n <= 0) break;
        done += n;
    }
    char beyond;
    // Reading to the end makes libzip compare the sum.
    bool whole = done == entry.unpacked && zip_fread(packed.get(), &beyond, 1) == 0;
    check_input(whole, file_->path(), ": the zip entry ", in_quotes(name), " does not unpack to its ",
                entry.unpacked, " bytes (", zip_file_strerror(packed.get()), ")", kDamaged);
    return storage;
}

}  // namespace sana
