#include "train/data/bpe.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>
#include <vector>

#include "core/check.h"

namespace sana {

namespace {

constexpr std::string_view kSpace = "\xe2\x96\x81";  // U+2581

// The code points of valid UTF-8; a byte that belongs to none stands alone and becomes a byte token later.
std::vector<std::string> characters(std::string_view text) {
    std::vector<std::string> out;
    for (size_t i = 0; i < text.size();) {
        unsigned char c = static_cast<unsigned char>(text[i]);
        size_t length = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc2 ? 2 : 1;
        bool whole = i + length <= text.size();
        for (size_t k = 1; whole && k < length; ++k)
            whole = (static_cast<unsigned char>(text[i + k]) & 0xc0) == 0x80;
        if (!whole) length = 1;
        out.emplace_back(text.substr(i, length));
        i += length;
    }
    return out;
}

enum class Kind { letter, digit, other };
Kind kind_of(const std::string& character) {
    unsigned char c = static_cast<unsigned char>(character[0]);
    if (std::isalpha(c) != 0 || (c >= 0x80 && character != kSpace)) return Kind::letter;
    return std::isdigit(c) != 0 ? Kind::digit : Kind::other;
}

uint64_t key(int32_t a, int32_t b) { return static_cast<uint64_t>(a) << 32 | static_cast<uint32_t>(b); }

}  // namespace

void WordCounts::add(std::string_view text, int64_t times) {
    std::string word, space;
    Kind kind = Kind::other;
    auto end_word = [&] {
        if (!word.empty()) words_[word] += times;
        word.clear();
    };
    for (const std::string& character : characters(text)) {
        bool blank = character == " " || character == "\n" || character == "\t" || character == "\r";
        if (blank) {
            end_word();
            space = character == " " ? std::string(kSpace) : "";
            continue;
        }
        // An apostrophe or a hyphen inside a word is left outside of it as well: pieces of letters stay few.
        Kind now = kind_of(character);
        if (word.empty() || now != kind || now == Kind::other) {
            end_word();
            word = space;
            space.clear();
            kind = now;
        }
        word += character;
    }
    end_word();
}

std::string train_tokenizer(const WordCounts& counts, int64_t size) {
    std::vector<std::string> pieces = {"<pad>", "<eos>", "<bos>", "<unk>"};
    for (int b = 0; b < 256; ++b) {
        constexpr std::string_view hex = "0123456789ABCDEF";
        pieces.push_back(
            join("<0x", hex[static_cast<size_t>(b / 16)], hex[static_cast<size_t>(b % 16)], '>'));
    }
    std::set<std::string> alphabet = {std::string(kSpace)};
    for (char c = '!'; c <= '~'; ++c) alphabet.insert(std::string(1, c));
    for (const auto& [word, count] : counts.words()) {
        for (const std::string& character : characters(word)) {
            bool lone_byte = character.size() == 1 && static_cast<unsigned char>(character[0]) >= 0x80;
            if (!lone_byte) alphabet.insert(character);
        }
    }
    std::unordered_map<std::string, int32_t> ids;
    for (const std::string& character : alphabet) {
        ids[character] = static_cast<int32_t>(pieces.size());
        pieces.push_back(character);
    }
    check_input(static_cast<int64_t>(pieces.size()) <= size && size <= 1 << 20, "a tokenizer of ", size,
                " pieces: these texts need at least ", pieces.size(), " (bytes and characters), and at most ",
                1 << 20, " are supported");

    struct Word {
        std::vector<int32_t> symbols;
        int64_t count;
    };
    std::vector<Word> words;
    for (const auto& [text, count] : counts.words()) {
        Word word{{}, count};
        for (const std::string& character : characters(text)) {
            auto it = ids.find(character);
            if (it != ids.end()) word.symbols.push_back(it->second);
        }
        if (word.symbols.size() > 1) words.push_back(std::move(word));
    }
    std::unordered_map<uint64_t, int64_t> pairs;
    auto count_pairs = [&](const Word& word, int64_t sign) {
        for (size_t i = 0; i + 1 < word.symbols.size(); ++i)
            pairs[key(word.symbols[i], word.symbols[i + 1])] += sign * word.count;
    };
    for (const Word& word : words) count_pairs(word, 1);

    std::vector<std::array<std::string, 2>> merges;
    while (static_cast<int64_t>(pieces.size()) < size) {
        uint64_t best = 0;
        int64_t most = 1;
        auto texts = [&](uint64_t pair) {
            return std::pair<const std::string&, const std::string&>(pieces[pair >> 32],
                                                                     pieces[pair & 0xffffffffu]);
        };
        for (const auto& [pair, count] : pairs) {
            if (count > most || (count == most && most > 1 && texts(pair) < texts(best))) {
                best = pair;
                most = count;
            }
        }
        if (most < 2) break;
        auto [left, right] = texts(best);
        std::string piece = left + right;
        merges.push_back({left, right});
        // Two ways can lead to one piece; it has one id.
        auto [it, fresh] = ids.emplace(piece, static_cast<int32_t>(pieces.size()));
        if (fresh) pieces.push_back(piece);
        int32_t a = static_cast<int32_t>(best >> 32), b = static_cast<int32_t>(best & 0xffffffffu),
                merged = it->second;
        for (Word& word : words) {
            bool there = false;
            for (size_t i = 0; i + 1 < word.symbols.size(); ++i)
                there = there || (word.symbols[i] == a && word.symbols[i + 1] == b);
            if (!there) continue;
            count_pairs(word, -1);
            std::vector<int32_t> symbols;
            for (size_t i = 0; i < word.symbols.size(); ++i) {
                bool pair = i + 1 < word.symbols.size() && word.symbols[i] == a && word.symbols[i + 1] == b;
                symbols.push_back(pair ? merged : word.symbols[i]);
                i += pair;
            }
            word.symbols = std::move(symbols);
            count_pairs(word, 1);
        }
        pairs.erase(best);
    }

    using nlohmann::ordered_json;
    ordered_json added = ordered_json::array(), vocabulary = ordered_json::object();
    for (int32_t id = 0; id < 4; ++id)
        added.push_back({{"id", id},
                         {"content", pieces[static_cast<size_t>(id)]},
                         {"single_word", false},
                         {"lstrip", false},
                         {"rstrip", false},
                         {"normalized", false},
                         {"special", true}});
    for (size_t id = 0; id < pieces.size(); ++id) vocabulary[pieces[id]] = id;
    ordered_json begin = {{"SpecialToken", {{"id", "<bos>"}, {"type_id", 0}}}};
    auto sequence = [](const char* name, int type) {
        return ordered_json{{"Sequence", {{"id", name}, {"type_id", type}}}};
    };
    ordered_json second_begin = {{"SpecialToken", {{"id", "<bos>"}, {"type_id", 1}}}};
    ordered_json json = {
        {"version", "1.0"},
        {"truncation", nullptr},
        {"padding", nullptr},
        {"added_tokens", added},
        {"normalizer", {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpace}}},
        {"pre_tokenizer", nullptr},
        {"post_processor",
         {{"type", "TemplateProcessing"},
          {"single", {begin, sequence("A", 0)}},
          {"pair", {begin, sequence("A", 0), second_begin, sequence("B", 1)}},
          {"special_tokens", {{"<bos>", {{"id", "<bos>"}, {"ids", {2}}, {"tokens", {"<bos>"}}}}}}}},
        {"decoder",
         {{"type", "Sequence"},
          {"decoders",
           {{{"type", "Replace"}, {"pattern", {{"String", kSpace}}}, {"content", " "}},
            {{"type", "ByteFallback"}},
            {{"type", "Fuse"}}}}}},
        {"model",
         {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", "<unk>"},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", true},
          {"byte_fallback", true},
          {"ignore_merges", false},
          {"vocab", vocabulary},
          {"merges", merges}}}};
    return json.dump(1) + "\n";
}

}  // namespace sana
