// The tokenizer of a text encoder, read from tokenizer.json (HuggingFace tokenizers): byte-pair encoding with byte
// fallback, added tokens and a Replace normaliser, as Gemma has it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sana {

class Tokenizer {
public:
    struct Tables;  // text/tokenizer_tables.h

    // A tokenizer.json or the folder that holds one. InputError for a damaged file, and for parts of the format that
    // are not supported, by name.
    static Tokenizer load(const std::string& path);
    // The same from the file's text; source: for messages.
    static Tokenizer parse(const std::string& json, const std::string& source);

    Tokenizer(Tokenizer&&) noexcept;
    ~Tokenizer();

    // Ids of a text. begin: whether the tokens that the file puts in front of a text (<bos>) are put there.
    //   1. added tokens are cut out of the raw text, the longest match first, also inside words
    //   2. each stretch between them is normalised and split into code points; one that is no piece becomes its UTF-8
    //      bytes as <0xXX> pieces, as does a byte of invalid UTF-8
    //   3. the neighbours with the best rank are merged, the leftmost of equals first, until none is left
    std::vector<int32_t> encode(std::string_view text, bool begin = true) const;

    std::string decode(const std::vector<int32_t>& ids) const;
    int64_t size() const;  // largest id + 1
    std::optional<int32_t> id_of(std::string_view piece) const;

private:
    explicit Tokenizer(std::unique_ptr<Tables> tables);
    std::unique_ptr<Tables> tables_;
};

}  // namespace sana
