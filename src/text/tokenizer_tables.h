// What a tokenizer.json becomes.
#pragma once

#include <array>
#include <string>
#include <unordered_map>
#include <vector>

#include "text/tokenizer.h"

namespace sana {

struct StringHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};

struct Tokenizer::Tables {
    struct Merge {
        int32_t rank, id;
    };
    struct Added {
        std::string text;
        int32_t id;
    };

    std::unordered_map<std::string, int32_t, StringHash, std::equal_to<>> ids;
    std::vector<std::string> pieces;             // by id
    std::unordered_map<uint64_t, Merge> merges;  // key: pair()
    std::array<std::vector<Added>, 256> added;   // by first byte, longest first
    std::array<int32_t, 256> bytes;              // <0xXX> pieces, -1: none
    std::vector<int32_t> begin;                  // put in front of a text
    int32_t unknown = -1;
    bool fuse_unknown = false;
    std::string replace_from, replace_to;  // normaliser; empty: none

    static uint64_t pair(int32_t left, int32_t right) {
        return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
    }
};

}  // namespace sana
