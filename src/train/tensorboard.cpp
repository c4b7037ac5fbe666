#include "train/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "core/check.h"

namespace sana {

namespace {

// Protocol buffers, wire format: a key is field number * 8 + type (0 varint, 1 eight bytes, 2 length and bytes, 5 four).
void varint(std::string& out, uint64_t value) {
    while (value >= 128) {
        out += static_cast<char>(value | 128);
        value >>= 7;
    }
    out += static_cast<char>(value);
}
template <class T>
void plain(std::string& out, T value) {
    char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    out.append(bytes, sizeof(T));
}
void text_field(std::string& out, int field, const std::string& text) {
    varint(out, static_cast<uint64_t>(field * 8 + 2));
    varint(out, text.size());
    out += text;
}

std::string event_at(double time, int64_t step) {
    std::string out;
    varint(out, 1 * 8 + 1);  // wall_time
    plain(out, time);
    varint(out, 2 * 8 + 0);  // step
    varint(out, static_cast<uint64_t>(step));
    return out;
}

uint32_t masked(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8u; }

}  // namespace

uint32_t crc32c(const void* data, size_t bytes) {
    static const std::array<uint32_t, 256> table = [] {
        std::array<uint32_t, 256> t{};
        for (uint32_t i = 0; i < 256; ++i) {
            uint32_t c = i;
            for (int k = 0; k < 8; ++k) c = (c >> 1) ^ (c & 1 ? 0x82f63b78u : 0u);
            t[i] = c;
        }
        return t;
    }();
    uint32_t crc = 0xffffffffu;
    const auto* p = static_cast<const unsigned char*>(data);
    for (size_t i = 0; i < bytes; ++i) crc = table[(crc ^ p[i]) & 0xff] ^ (crc >> 8);
    return crc ^ 0xffffffffu;
}

TensorBoard::TensorBoard(const std::string& folder, double time) {
    path_ = join(folder, "/events.out.tfevents.", static_cast<int64_t>(time), ".",
                 static_cast<int64_t>(getpid()), ".sana");
    fd_ = open(path_.c_str(), O_CREAT | O_WRONLY | O_APPEND, 0644);
    check_input(fd_ >= 0, path_, ": cannot be written: ", std::string(std::strerror(errno)));
    std::string event;
    varint(event, 1 * 8 + 1);
    plain(event, time);
    text_field(event, 3, "brain.Event:2");  // file_version
    record(event);
}

TensorBoard::~TensorBoard() {
    if (fd_ >= 0) close(fd_);
}

void TensorBoard::add(int64_t step, double time, const std::vector<std::pair<std::string, double>>& values) {
    std::string summary;
    for (const auto& [tag, number] : values) {
        std::string value;
        text_field(value, 1, tag);
        varint(value, 2 * 8 + 5);  // simple_value
        plain(value, static_cast<float>(number));
        text_field(summary, 1, value);
    }
    std::string event = event_at(time, step);
    text_field(event, 5, summary);
    record(event);
}

// Length, its checksum, the bytes, their checksum; in one write, so that a reader never sees half a record.
void TensorBoard::record(const std::string& event) {
    std::string out, length;
    plain(length, static_cast<uint64_t>(event.size()));
    out += length;
    plain(out, masked(crc32c(length.data(), length.size())));
    out += event;
    plain(out, masked(crc32c(event.data(), event.size())));
    ssize_t written = write(fd_, out.data(), out.size());
    check_input(written == static_cast<ssize_t>(out.size()), path_, ": cannot be written: ",
                std::string(written < 0 ? std::strerror(errno) : "the disk is full"));
}

}  // namespace sana
