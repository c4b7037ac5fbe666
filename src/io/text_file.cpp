#include "io/text_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/check.h"
#include "io/describe.h"

namespace sana {

namespace fs = std::filesystem;

namespace {

constexpr int kDeepest = 200;

// "path: line 3, column 7: " for a byte position.
std::string place(const std::string& path, std::string_view text, size_t position) {
    std::string_view before = text.substr(0, std::min(position, text.size()));
    auto line = std::count(before.begin(), before.end(), '\n') + 1;
    size_t line_start = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
    return join(path, ": line ", line, ", column ", before.size() - line_start + 1, ": ");
}

// Only counts: the text is handed on as text.
class Syntax : public nlohmann::json_sax<nlohmann::json> {
public:
    Syntax(const std::string& path, std::string_view text) : path_(path), text_(text) {}

    bool null() override { return true; }
    bool boolean(bool) override { return true; }
    bool number_integer(number_integer_t) override { return true; }
    bool number_unsigned(number_unsigned_t) override { return true; }
    bool number_float(number_float_t, const string_t&) override { return true; }
    bool string(string_t&) override { return true; }
    bool binary(binary_t&) override { return true; }
    bool key(string_t&) override { return true; }
    bool start_object(std::size_t) override { return enter(); }
    bool end_object() override { return leave(); }
    bool start_array(std::size_t) override { return enter(); }
    bool end_array() override { return leave(); }
    bool parse_error(std::size_t position, const std::string& token,
                     const nlohmann::json::exception&) override {
        fail_input(place(path_, text_, position == 0 ? 0 : position - 1), "not valid JSON near ",
                   in_quotes(token), ": correct it or download the file again");
    }

private:
    bool enter() {
        check_input(++depth_ <= kDeepest, path_, ": JSON nested deeper than ", kDeepest, " is not read");
        return true;
    }
    bool leave() {
        --depth_;
        return true;
    }

    const std::string& path_;
    std::string_view text_;
    int depth_ = 0;
};

std::string without_infinities(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    bool in_string = false;
    for (size_t i = 0; i < text.size();) {
        if (in_string) {
            if (text[i] == '\\' && i + 1 < text.size())
                out += text[i++];
            else if (text[i] == '"')
                in_string = false;
            out += text[i++];
            continue;
        }
        size_t length = 0;
        for (std::string_view word : {"-Infinity", "Infinity", "NaN"}) {
            if (text.substr(i).starts_with(word)) {
                length = word.size();
                break;
            }
        }
        if (length > 0) {
            out += "null";
            i += length;
        } else {
            in_string = text[i] == '"';
            out += text[i++];
        }
    }
    return out;
}

}  // namespace

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
    check_input(is_folder(path), path,
                ": the folder cannot be made: ", error ? error.message() : "a file is in its place");
}

std::string read_text_file(const std::string& path, int64_t max_bytes) {
    check_input(!is_folder(path), path, ": is a folder, a file is needed here");
    errno = 0;
    std::ifstream in(path, std::ios::binary);
    if (!in.good()) {
        fail_input(path, ": cannot be read: ",
                   errno == ENOENT ? "there is no such file: check the path" : std::strerror(errno));
    }
    // Read in pieces: the size of a pipe or a file in /proc is not known beforehand.
    std::string text;
    char piece[1 << 14];
    while (in.read(piece, sizeof piece), in.gcount() > 0) {
        text.append(piece, static_cast<size_t>(in.gcount()));
        check_input(static_cast<int64_t>(text.size()) <= max_bytes, path, ": has more than the ", max_bytes,
                    " bytes that such a file may have: it is not the file meant here");
    }
    check_input(!in.bad(), path, ": reading failed: ", std::strerror(errno));
    return text;
}

std::string read_json_text(const std::string& path) {
    std::string text = read_text_file(path);
    if (text.starts_with("\xef\xbb\xbf")) text.erase(0, 3);
    bool json = text.find_first_not_of(" \t\r\n") != std::string::npos;
    check_input(json, path, ": is empty, JSON is needed here");
    text = without_infinities(text);
    if (text[text.find_first_not_of(" \t\r\n")] != '{' && text[text.find_first_not_of(" \t\r\n")] != '[') {
        std::string foreign = describe_foreign(std::string_view(text).substr(0, 512));
        if (!foreign.empty()) fail_input(path, ": this is ", foreign);
    }
    Syntax syntax(path, text);
    nlohmann::json::sax_parse(text, &syntax);
    return text;
}

void write_text_file(const std::string& path, const std::string& text) {
    AtomicFile file(path);
    file.write(text);
    file.commit();
}

}  // namespace sana
