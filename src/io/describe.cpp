#include "io/describe.h"

#include <algorithm>
#include <cctype>
#include <cstdint>

namespace sana {

namespace {

bool starts_with_word(std::string_view text, std::string_view word) {
    return text.size() >= word.size() &&
           std::equal(word.begin(), word.end(), text.begin(),
                      [](unsigned char a, unsigned char b) { return std::tolower(a) == std::tolower(b); });
}

}  // namespace

std::string in_quotes(std::string_view text) {
    constexpr size_t kLongest = 160, kHalf = 75;
    auto append = [](std::string& out, std::string_view part) {
        constexpr char kHex[] = "0123456789abcdef";
        for (unsigned char c : part) {
            if (c >= 0x20 && c < 0x7f) {
                out += static_cast<char>(c);
            } else {
                out += "\\x";
                out += kHex[c >> 4];
                out += kHex[c & 15];
            }
        }
    };
    std::string out = "\"";
    if (text.size() <= kLongest) {
        append(out, text);
    } else {
        append(out, text.substr(0, kHalf));
        out += " ... ";
        append(out, text.substr(text.size() - kHalf));
    }
    return out + '"';
}

std::string describe_foreign(std::string_view bytes) {
    if (bytes.starts_with("version https://git-lfs")) {
        return "a git-lfs pointer, not the file itself: run `git lfs pull` in its folder, or download the "
               "file";
    }
    std::string_view text = bytes;
    if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
    while (!text.empty() && std::isspace(static_cast<unsigned char>(text[0]))) text.remove_prefix(1);
    if (starts_with_word(text, "<!doctype html") || starts_with_word(text, "<html")) {
        return "a web page, not a checkpoint (a download that needs a login or another address): download it "
               "again";
    }
    if (starts_with_word(text, "<?xml")) {
        return "an XML text, not a checkpoint (often a server's error message): download it again";
    }
    if (bytes.starts_with("GGUF"))
        return "a GGUF file, which is not read here: use the safetensors or .pth form";
    if (bytes.starts_with("\x1f\x8b")) return "gzip-compressed: unpack it and give the file inside";
    if (bytes.starts_with("\xfd"
                          "7zXZ")) {
        return "xz-compressed: unpack it and give the file inside";
    }
    if (bytes.starts_with("\x28\xb5\x2f\xfd")) return "zstd-compressed: unpack it and give the file inside";
    if (bytes.size() >= 262 && bytes.substr(257, 5) == "ustar") {
        return "a tar archive: unpack it and give the checkpoint inside";
    }
    if (bytes.starts_with("\x89HDF\r\n"))
        return "an HDF5 file, which is not read here: use the safetensors form";
    bool pickle = bytes.size() >= 2 && bytes[0] == '\x80' && bytes[1] >= 1 && bytes[1] <= 5;
    if (pickle) {
        return "a bare pickle, the form torch.save wrote before version 1.6: load it in PyTorch and save it "
               "again "
               "with torch.save, or as safetensors";
    }
    if (bytes.starts_with("{") || bytes.starts_with("[")) {
        return "a JSON text, not a file of weights: give the .safetensors or .pth file";
    }
    if (!bytes.empty() && bytes.find_first_not_of('\0') == std::string_view::npos) {
        return "nothing but zero bytes (an interrupted download): download it again";
    }
    return "";
}

bool looks_like_safetensors(std::string_view bytes) {
    using namespace std::string_view_literals;
    return bytes.size() > 8 && bytes[8] == '{' && bytes.substr(4, 4) == "\0\0\0\0"sv;
}

bool is_utf8(std::string_view text) {
    for (size_t i = 0; i < text.size();) {
        auto byte = [&](size_t at) { return at < text.size() ? static_cast<uint8_t>(text[at]) : 0; };
        uint32_t lead = byte(i);
        size_t length = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : lead >> 3 == 30 ? 4 : 0;
        if (length == 0) return false;
        uint32_t point = length == 1 ? lead : lead & (0x7fu >> length);
        for (size_t k = 1; k < length; ++k) {
            if (byte(i + k) >> 6 != 2) return false;
            point = (point << 6) | (byte(i + k) & 0x3fu);
        }
        constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
        if (point < kSmallest[length] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
            return false;
        i += length;
    }
    return true;
}

}  // namespace sana
