// tokenizer.json as it streams past: the two large lists are not kept as JSON, the small rest is.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "text/tokenizer_tables.h"

namespace sana {

// Limits that no tokenizer in use comes near; a damaged file is refused there instead of filling the memory.
constexpr int64_t kMostTokenizerBytes = int64_t{256} << 20;
constexpr int32_t kMostPieces = 1 << 22;  // ids are below; merges are not more

struct TokenizerJson {
    nlohmann::json rest;  // the file without model.vocab and model.merges
    PieceTable pieces;    // model.vocab
    bool has_merges = false;

    // model.merges in the file's order: both pieces one after the other.
    struct Merge {
        size_t begin;
        uint32_t left, right;  // bytes
    };
    std::vector<Merge> merges;
    std::string merge_text;
};

// InputError for what is not JSON, is too deep or too large, or has an unusable entry in the two lists.
TokenizerJson read_tokenizer_json(const std::string& text, const std::string& source);

}  // namespace sana
