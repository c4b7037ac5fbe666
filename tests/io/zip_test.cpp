// Zip archives made by other tools, by hand: compressed entries, and directories that lie.
#include "io/zip.h"

#include <gtest/gtest.h>

#include "files.h"

using namespace sana;
using namespace sana::test;
using namespace std::string_literals;

namespace {

struct Entry {
    std::string name, packed;
    uint32_t unpacked = 0, sum = 0;
    uint16_t method = 0, flags = 0;
    uint32_t header_shift = 0;  // added to the place that the directory gives
};

template <class T>
std::string le(T value) {
    return {reinterpret_cast<char*>(&value), sizeof value};
}

std::string zip_of(const std::vector<Entry>& entries, uint16_t count_shift = 0) {
    std::string out, directory;
    for (const Entry& e : entries) {
        std::string common = join(le<uint16_t>(20), le(e.flags), le(e.method), le<uint32_t>(0), le(e.sum),
                                  le(static_cast<uint32_t>(e.packed.size())), le(e.unpacked),
                                  le(static_cast<uint16_t>(e.name.size())), le<uint16_t>(0));
        directory += join(le<uint32_t>(0x02014b50), le<uint16_t>(20), common, std::string(10, '\0'),
                          le(static_cast<uint32_t>(out.size()) + e.header_shift), e.name);
        out += join(le<uint32_t>(0x04034b50), common, e.name, e.packed);
    }
    auto count = static_cast<uint16_t>(entries.size() + count_shift);
    auto begin = static_cast<uint32_t>(out.size()), bytes = static_cast<uint32_t>(directory.size());
    return join(out, directory, le<uint32_t>(0x06054b50), le<uint32_t>(0), le(count), le(count), le(bytes),
                le(begin), le<uint16_t>(0));
}

// A deflate stream of one uncompressed block (RFC 1951, 3.2.4).
std::string deflated(const std::string& text) {
    auto length = static_cast<uint16_t>(text.size());
    return join("\x01", le(length), le(static_cast<uint16_t>(~length)), text);
}

Entry packed_entry(const std::string& name, const std::string& text) {
    return {name, deflated(text), static_cast<uint32_t>(text.size()),
            crc32(text.data(), static_cast<int64_t>(text.size())), 8};
}

std::string read_entry(const std::string& archive, const std::string& name) {
    std::string path = fresh_folder() + "/x.zip";
    write_bytes(path, archive);
    StoragePtr bytes = ZipReader(MappedFile::open(path)).read(name);
    return {reinterpret_cast<char*>(bytes->data()), static_cast<size_t>(bytes->bytes())};
}

void expect_refused(const std::string& archive, const std::vector<std::string>& words) {
    std::string message = input_error([&] { read_entry(archive, "a"); });
    for (const std::string& word : words) EXPECT_NE(message.find(word), std::string::npos) << message;
}

TEST(Zip, StoredAndCompressedEntries) {
    std::string archive = zip_of({packed_entry("a", "hello"), {"b", "stored", 6}, packed_entry("empty", "")});
    EXPECT_EQ(read_entry(archive, "a"), "hello");
    EXPECT_EQ(read_entry(archive, "b"), "stored");
    EXPECT_EQ(read_entry(archive, "empty"), "");
}

TEST(Zip, LyingEntries) {
    Entry good = packed_entry("a", "hello");
    auto with = [&](auto change) {
        Entry entry = good;
        change(entry);
        return zip_of({entry});
    };
    expect_refused(with([](Entry& e) { e.sum ^= 1; }), {"\"a\"", "unpack"});
    expect_refused(with([](Entry& e) { e.unpacked = 4; }), {"\"a\"", "unpack"});
    expect_refused(with([](Entry& e) { e.unpacked = 6; }), {"\"a\"", "unpack"});
    expect_refused(with([](Entry& e) { e.unpacked = 0xfffffff0; }), {"\"a\"", "claims"});
    expect_refused(with([](Entry& e) { e.packed[0] = 7; }), {"\"a\""});
    expect_refused(with([](Entry& e) { e.method = 99; }), {"\"a\""});
    expect_refused(with([](Entry& e) { e.flags = 1; }), {"\"a\"", "encrypted"});
    expect_refused(with([](Entry& e) { e.header_shift = 1, e.method = 0, e.unpacked = 10; }),
                   {"\"a\"", "not where"});
    expect_refused(with([](Entry& e) { e.header_shift = 1 << 30, e.method = 0, e.unpacked = 10; }),
                   {"behind the end"});
    expect_refused(with([](Entry& e) { e.method = 0; }), {"\"a\"", "sizes differ"});
    expect_refused(with([](Entry& e) { e.name = "b"; }), {"\"a\"", "not in this zip file"});
    expect_refused(zip_of({good, good}), {"\"a\"", "twice"});
    expect_refused(zip_of({good}, 1), {"entry 1"});
}

TEST(Zip, SumOfKnownText) {
    EXPECT_EQ(crc32("123456789", 9), 0xcbf43926u);  // the check value that the CRC catalogue lists
    std::string text(1000, 'a');
    uint32_t slow = 0xffffffffu;
    for (unsigned char c : text) {
        slow ^= c;
        for (int bit = 0; bit < 8; ++bit) slow = (slow >> 1) ^ ((slow & 1u) != 0 ? 0xedb88320u : 0u);
    }
    EXPECT_EQ(crc32(text.data(), 1000), ~slow);
}

}  // namespace
