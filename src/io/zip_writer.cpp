#include <array>
#include <cstring>

#include "core/check.h"
#include "io/zip.h"

namespace sana {

namespace {

using Table = std::array<std::array<uint32_t, 256>, 8>;

constexpr Table make_table() {
    Table table{};
    for (uint32_t i = 0; i < 256; ++i) {
        uint32_t sum = i;
        for (int bit = 0; bit < 8; ++bit) sum = (sum >> 1) ^ ((sum & 1u) != 0 ? 0xedb88320u : 0u);
        table[0][i] = sum;
    }
    for (size_t t = 1; t < 8; ++t) {
        for (size_t i = 0; i < 256; ++i)
            table[t][i] = (table[t - 1][i] >> 8) ^ table[0][table[t - 1][i] & 0xff];
    }
    return table;
}

constexpr Table kTable = make_table();

constexpr int64_t kAlignment = 64, kLocalBytes = 30, kFits32 = 0xfffffffe;

template <class T>
void put(std::string& out, T value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

uint32_t narrow(int64_t value) { return value > kFits32 ? 0xffffffffu : static_cast<uint32_t>(value); }

}  // namespace

// Eight bytes a step, each through the table of its distance to the end of the step.
uint32_t crc32(const void* data, int64_t bytes) {
    const auto* p = static_cast<const uint8_t*>(data);
    uint32_t sum = 0xffffffffu;
    for (; bytes >= 8; p += 8, bytes -= 8) {
        uint32_t low, high;
        std::memcpy(&low, p, 4);
        std::memcpy(&high, p + 4, 4);
        low ^= sum;
        sum = kTable[7][low & 0xff] ^ kTable[6][(low >> 8) & 0xff] ^ kTable[5][(low >> 16) & 0xff] ^
              kTable[4][low >> 24] ^ kTable[3][high & 0xff] ^ kTable[2][(high >> 8) & 0xff] ^
              kTable[1][(high >> 16) & 0xff] ^ kTable[0][high >> 24];
    }
    for (; bytes > 0; ++p, --bytes) sum = (sum >> 8) ^ kTable[0][(sum ^ *p) & 0xff];
    return ~sum;
}

void ZipWriter::add(const std::string& name, const void* data, int64_t bytes) {
    check(name.size() < 0x8000, "a zip entry's name of ", name.size(), " bytes is too long");
    int64_t header = file_.written();
    bool wide = bytes > kFits32;
    std::string extra;
    if (wide) {
        put<uint16_t>(extra, 1);
        put<uint16_t>(extra, 16);
        put<int64_t>(extra, bytes);
        put<int64_t>(extra, bytes);
    }
    int64_t unpadded = header + kLocalBytes + static_cast<int64_t>(name.size() + extra.size()) + 4;
    int64_t padding = (kAlignment - unpadded % kAlignment) % kAlignment;
    put<uint16_t>(extra, 0x4246);  // "FB", PyTorch's padding field
    put<uint16_t>(extra, static_cast<uint16_t>(padding));
    extra.append(static_cast<size_t>(padding), 'Z');

    uint32_t sum = crc32(data, bytes);
    std::string common;  // what local header and directory share: version needed ... sizes
    put<uint16_t>(common, wide || header > kFits32 ? 45 : 20);
    put<uint16_t>(common, 0);       // flags
    put<uint16_t>(common, 0);       // stored
    put<uint16_t>(common, 0);       // time
    put<uint16_t>(common, 0x0021);  // 1980-01-01: equal content gives equal bytes
    put<uint32_t>(common, sum);
    put<uint32_t>(common, narrow(bytes));
    put<uint32_t>(common, narrow(bytes));
    put<uint16_t>(common, static_cast<uint16_t>(name.size()));

    std::string local;
    put<uint32_t>(local, 0x04034b50);
    local += common;
    put<uint16_t>(local, static_cast<uint16_t>(extra.size()));
    local += name;
    local += extra;
    file_.write(local);
    file_.write(data, bytes);

    std::string wide_fields;
    if (wide) put<int64_t>(wide_fields, bytes), put<int64_t>(wide_fields, bytes);
    if (header > kFits32) put<int64_t>(wide_fields, header);
    std::string directory_extra;
    if (!wide_fields.empty()) {
        put<uint16_t>(directory_extra, 1);
        put<uint16_t>(directory_extra, static_cast<uint16_t>(wide_fields.size()));
        directory_extra += wide_fields;
    }
    put<uint32_t>(directory_, 0x02014b50);
    put<uint16_t>(directory_, 45);  // made by
    directory_ += common;
    put<uint16_t>(directory_, static_cast<uint16_t>(directory_extra.size()));
    directory_.append(2 + 2 + 2 + 4, '\0');  // comment, disk, attributes
    put<uint32_t>(directory_, narrow(header));
    directory_ += name;
    directory_ += directory_extra;
    ++entries_;
}

void ZipWriter::finish() {
    int64_t begin = file_.written(), bytes = static_cast<int64_t>(directory_.size());
    file_.write(directory_);
    std::string end;
    if (begin > kFits32 || entries_ >= 0xffff) {
        int64_t end64 = file_.written();
        put<uint32_t>(end, 0x06064b50);
        put<int64_t>(end, 44);  // bytes of this record that follow
        put<uint16_t>(end, 45);
        put<uint16_t>(end, 45);
        put<uint32_t>(end, 0);
        put<uint32_t>(end, 0);
        put<int64_t>(end, entries_);
        put<int64_t>(end, entries_);
        put<int64_t>(end, bytes);
        put<int64_t>(end, begin);
        put<uint32_t>(end, 0x07064b50);
        put<uint32_t>(end, 0);
        put<int64_t>(end, end64);
        put<uint32_t>(end, 1);
    }
    auto count = static_cast<uint16_t>(entries_ >= 0xffff ? 0xffff : entries_);
    put<uint32_t>(end, 0x06054b50);
    put<uint32_t>(end, 0);  // disks
    put<uint16_t>(end, count);
    put<uint16_t>(end, count);
    put<uint32_t>(end, narrow(bytes));
    put<uint32_t>(end, narrow(begin));
    put<uint16_t>(end, 0);  // comment
    file_.write(end);
}

}  // namespace sana
