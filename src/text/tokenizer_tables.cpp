#include "text/tokenizer_tables.h"

#include <algorithm>
#include <bit>

#include "core/check.h"

namespace sana {

bool PieceTable::has(int32_t id) const {
    return id >= 0 && id < end() && spans_[static_cast<size_t>(id)].bytes >= 0;
}

std::string_view PieceTable::text(int32_t id) const {
    if (!has(id)) return {};
    const Span& span = spans_[static_cast<size_t>(id)];
    return std::string_view(texts_).substr(span.begin, static_cast<size_t>(span.bytes));
}

size_t PieceTable::slot(std::string_view wanted) const {
    size_t mask = slots_.size() - 1, i = std::hash<std::string_view>()(wanted) & mask;
    while (slots_[i] >= 0 && text(slots_[i]) != wanted) i = (i + 1) & mask;
    return i;
}

void PieceTable::grow() {
    std::vector<int32_t> old = std::move(slots_);
    slots_.assign(std::max<size_t>(64, old.size() * 2), -1);
    for (int32_t id : old) {
        if (id >= 0) slots_[slot(text(id))] = id;
    }
}

int32_t PieceTable::find(std::string_view wanted) const { return slots_.empty() ? -1 : slots_[slot(wanted)]; }

bool PieceTable::add(std::string_view text, int32_t id) {
    if (has(id)) return false;
    if (used_ * 2 >= slots_.size()) grow();
    size_t i = slot(text);
    if (slots_[i] >= 0) return false;
    if (id >= end()) spans_.resize(static_cast<size_t>(id) + 1);
    spans_[static_cast<size_t>(id)] = {texts_.size(), static_cast<int64_t>(text.size())};
    texts_ += text;
    slots_[i] = id;
    ++used_;
    return true;
}

void MergeTable::reserve(size_t merges) {
    size_t slots = std::bit_ceil(std::max<size_t>(2, merges * 2));
    pairs_.assign(slots, kFree);
    merges_.resize(slots);
}

size_t MergeTable::slot(uint64_t pair) const {
    // The high bits of a product with an odd constant depend on all bits of the pair.
    size_t mask = pairs_.size() - 1, i = ((pair * 0x9E3779B97F4A7C15u) >> 32) & mask;
    while (pairs_[i] != kFree && pairs_[i] != pair) i = (i + 1) & mask;
    return i;
}

namespace {

uint64_t pair_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

void MergeTable::add(int32_t left, int32_t right, Merge merge) {
    size_t i = slot(pair_of(left, right));
    pairs_[i] = pair_of(left, right);
    merges_[i] = merge;
}

const MergeTable::Merge* MergeTable::find(int32_t left, int32_t right) const {
    if (pairs_.empty()) return nullptr;
    size_t i = slot(pair_of(left, right));
    return pairs_[i] == kFree ? nullptr : &merges_[i];
}

void AddedTokens::add(const std::string& text, int32_t id) {
    ids_[text] = id;
    std::vector<size_t>& lengths = lengths_[static_cast<unsigned char>(text[0])];
    auto at = std::lower_bound(lengths.begin(), lengths.end(), text.size(), std::greater<>());
    if (at == lengths.end() || *at != text.size()) lengths.insert(at, text.size());
}

int32_t AddedTokens::match(std::string_view text, size_t i, size_t& bytes) const {
    for (size_t length : lengths_[static_cast<unsigned char>(text[i])]) {
        if (length > text.size() - i) continue;
        auto it = ids_.find(text.substr(i, length));
        if (it == ids_.end()) continue;
        bytes = length;
        return it->second;
    }
    return -1;
}

std::string replaced(std::string_view text, const Replace& replace) {
    std::string out;
    for (size_t i = 0; i < text.size();) {
        size_t at = std::min(text.find(replace.from, i), text.size());
        out += text.substr(i, at - i);
        if (at < text.size()) out += replace.to;
        i = at + replace.from.size();
    }
    return out;
}

std::string normalised(std::string_view text, const std::vector<Replace>& replaces) {
    constexpr size_t kMostGrowth = 16;
    std::string out(text);
    for (const Replace& replace : replaces) {
        out = replaced(out, replace);
        check_input(out.size() <= kMostGrowth * text.size(),
                    "the tokenizer's normalizer makes a text more than ", kMostGrowth, " times as long");
    }
    return out;
}

std::vector<std::string_view> cut(std::string_view text, const Split& split) {
    struct Part {
        size_t begin, end;
        bool match;
    };
    std::vector<Part> parts;
    for (size_t i = 0; i < text.size();) {
        size_t at = std::min(text.find(split.pattern, i), text.size());
        if (at > i) parts.push_back({i, at, false});
        if (at < text.size()) parts.push_back({at, at + split.pattern.size(), true});
        i = at + split.pattern.size();
    }
    std::vector<std::string_view> out;
    auto put = [&](size_t begin, size_t end) { out.push_back(text.substr(begin, end - begin)); };
    for (size_t k = 0; k < parts.size(); ++k) {
        auto [begin, end, match] = parts[k];
        bool after_match = k > 0 && parts[k - 1].match,
             before_text = k + 1 < parts.size() && !parts[k + 1].match;
        switch (split.behavior) {
            case SplitBehavior::Removed:
                if (!match) put(begin, end);
                break;
            case SplitBehavior::Isolated: put(begin, end); break;
            case SplitBehavior::Contiguous:
                while (match && k + 1 < parts.size() && parts[k + 1].match) end = parts[++k].end;
                put(begin, end);
                break;
            case SplitBehavior::MergedWithPrevious:
                // Only the first occurrence of a row joins the text before it.
                if (match && k > 0 && !after_match) {
                    out.pop_back();
                    begin = parts[k - 1].begin;
                }
                put(begin, end);
                break;
            case SplitBehavior::MergedWithNext:
                // Only the last occurrence of a row joins the text behind it.
                if (match && before_text) end = parts[++k].end;
                put(begin, end);
                break;
        }
    }
    return out;
}

}  // namespace sana
