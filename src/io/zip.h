// Zip archives as PyTorch writes them: reading entries in place, writing entries uncompressed and aligned.
// Format: PKWARE APPNOTE.TXT 6.3.10 (sections 4.3 and 4.5.3 for files above 4 GiB).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/memory.h"
#include "io/atomic_file.h"
#include "io/mmap.h"

namespace sana {

class ZipReader {
public:
    // Reads the directory. InputError when there is none, when it does not agree with the file, or names repeat.
    explicit ZipReader(std::shared_ptr<MappedFile> file);

    bool has(const std::string& name) const { return entries_.count(name) != 0; }
    std::vector<std::string> names() const;
    // Bytes of the entry once unpacked, as the directory says.
    int64_t size(const std::string& name) const { return at(name).unpacked; }
    // The entry's bytes: a piece of the mapping when it is stored uncompressed, else unpacked into memory through
    // libzip, which also checks the sum. Sums of stored entries are not checked: torch.save may leave them out.
    StoragePtr read(const std::string& name) const;

private:
    struct Entry {
        int64_t header = 0, packed = 0, unpacked = 0;  // place of the local header, sizes in bytes
        uint16_t method = 0, flags = 0;
    };
    const Entry& at(const std::string& name) const;
    StoragePtr unpack(const std::string& name, const Entry& entry) const;

    std::shared_ptr<MappedFile> file_;
    std::map<std::string, Entry> entries_;
};

class ZipWriter {
public:
    explicit ZipWriter(AtomicFile& file) : file_(file) {}

    // Appends an entry whose data begins at a multiple of 64 bytes (padded by an extra field, as PyTorch does).
    void add(const std::string& name, const void* data, int64_t bytes);
    void add(const std::string& name, std::string_view text) {
        add(name, text.data(), static_cast<int64_t>(text.size()));
    }
    void finish();  // writes the directory; the file still has to be committed

private:
    std::string directory_;
    AtomicFile& file_;
    int64_t entries_ = 0;
};

// The sum that zip uses (CRC-32, polynomial 0xedb88320 reflected).
uint32_t crc32(const void* data, int64_t bytes);

}  // namespace sana
