// What a tokenizer.json becomes: compact tables that are filled while the file streams past.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/tokenizer.h"

namespace sana {

// Pieces by id and ids by piece. One text holds all pieces; ids may have gaps.
class PieceTable {
public:
    // False, and nothing is added, when the id or the text is already there. id >= 0.
    bool add(std::string_view text, int32_t id);
    int32_t find(std::string_view text) const;  // -1: no such piece
    bool has(int32_t id) const;
    std::string_view text(int32_t id) const;                             // empty for a gap
    int32_t end() const { return static_cast<int32_t>(spans_.size()); }  // largest id + 1

private:
    struct Span {
        size_t begin = 0;
        int64_t bytes = -1;  // -1: a gap
    };
    // Where text is or would be.
    size_t slot(std::string_view text) const;
    void grow();

    std::string texts_;
    std::vector<Span> spans_;
    std::vector<int32_t> slots_;  // ids, -1: free; a power of two, at most half full
    size_t used_ = 0;
};

// Which two neighbours become which piece, and how soon.
class MergeTable {
public:
    struct Merge {
        int32_t rank, id;
    };
    void reserve(size_t merges);  // once, before add()
    // The last of equal pairs counts.
    void add(int32_t left, int32_t right, Merge merge);
    const Merge* find(int32_t left, int32_t right) const;  // null: they do not merge

private:
    static constexpr uint64_t kFree = ~uint64_t{0};  // no pair of ids >= 0
    size_t slot(uint64_t pair) const;

    std::vector<uint64_t> pairs_;
    std::vector<Merge> merges_;
};

// Added tokens: found in a text from left to right, the longest at a place first.
class AddedTokens {
public:
    void add(const std::string& text, int32_t id);
    bool empty() const { return ids_.empty(); }
    // The token that starts at text[i]; its length goes to `bytes`. -1: none.
    int32_t match(std::string_view text, size_t i, size_t& bytes) const;

private:
    struct Hash {
        using is_transparent = void;
        size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
    };
    std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
    std::array<std::vector<size_t>, 256> lengths_;  // by first byte, the longest first
};

// A normaliser: every `from` becomes `to`.
struct Replace {
    std::string from, to;
};
std::string replaced(std::string_view text, const Replace& replace);
// Through all of them; InputError when the text becomes more than 16 times as long.
std::string normalised(std::string_view text, const std::vector<Replace>& replaces);

// A pre-tokenizer: text is cut at every occurrence of a string. What becomes of the occurrence:
enum class SplitBehavior {
    Removed,
    Isolated,
    Contiguous,  // those in a row are one part
    MergedWithPrevious,
    MergedWithNext,
};
struct Split {
    std::string pattern;
    SplitBehavior behavior;
};
// The parts of text, none of them empty.
std::vector<std::string_view> cut(std::string_view text, const Split& split);

struct Tokenizer::Tables {
    PieceTable pieces;
    MergeTable merges;
    AddedTokens added;               // looked for in the raw text
    AddedTokens added_normalised;    // looked for in normalised text
    std::array<int32_t, 256> bytes;  // <0xXX> pieces, -1: none
    std::vector<int32_t> begin;      // put in front of a text
    int32_t unknown = -1;
    bool fuse_unknown = false;
    std::vector<Replace> replaces;
    std::vector<Split> splits;
};

}  // namespace sana
