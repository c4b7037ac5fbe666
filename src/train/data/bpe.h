// Training a tokenizer: byte-pair encoding over words, written as the tokenizer.json that text/tokenizer.h reads (the
// form of Gemma's: a space becomes U+2581, bytes stand for what has no piece, <bos> goes in front).
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace sana {

// How often each word stands in the texts. A word carries the space before it as U+2581; letters, digits and each other
// character are words of their own kind, so that no piece spans two of them.
class WordCounts {
public:
    void add(std::string_view text, int64_t times = 1);
    const std::map<std::string, int64_t>& words() const { return words_; }

private:
    std::map<std::string, int64_t> words_;
};

// The tokenizer with at most `size` pieces: four special tokens (<pad> <eos> <bos> <unk> = 0 .. 3), 256 bytes, the
// characters of the texts and printable ASCII, then merges of the most frequent neighbours (of equals the first in
// order of bytes) until the size is reached or no pair is there twice. The same counts give the same text.
std::string train_tokenizer(const WordCounts& counts, int64_t size);

// Everyday English words, so that ordinary prompts do not fall apart into letters.
const std::string& common_words();

}  // namespace sana
