#include "text/tokenizer.h"

#include <algorithm>
#include <queue>

#include "core/check.h"
#include "text/tokenizer_tables.h"
#include "text/unicode.h"

namespace sana {

namespace {

using Tables = Tokenizer::Tables;
using Ids = std::vector<int32_t>;

// Code points as pieces, bytes or unknowns.
Ids symbols(std::string_view text, const Tables& t) {
    Ids ids;
    bool unknown_before = false;
    for (size_t i = 0; i < text.size();) {
        size_t start = i;
        next_code_point(text, i);
        std::string_view symbol = text.substr(start, i - start);
        auto byte_id = [&](char c) { return t.bytes[static_cast<unsigned char>(c)]; };
        bool unknown = false;
        if (int32_t id = t.pieces.find(symbol); id >= 0) {
            ids.push_back(id);
        } else if (std::all_of(symbol.begin(), symbol.end(), [&](char c) { return byte_id(c) >= 0; })) {
            for (char c : symbol) ids.push_back(byte_id(c));
        } else if (t.unknown >= 0) {
            if (!(t.fuse_unknown && unknown_before)) ids.push_back(t.unknown);
            unknown = true;
        }
        unknown_before = unknown;
    }
    return ids;
}

// Merges neighbours, best rank first, leftmost of equals first. The symbols are a linked list; candidates wait in a
// heap and are skipped when one of their two symbols has changed since: O(n log n).
void merge(Ids& ids, const MergeTable& merges) {
    struct Candidate {
        int32_t rank;
        size_t left;
        int32_t left_id, right_id, merged;
        bool operator<(const Candidate& other) const {  // the heap's top: the lowest rank, then the leftmost
            return std::pair(rank, left) > std::pair(other.rank, other.left);
        }
    };
    constexpr size_t kNone = SIZE_MAX;
    constexpr int32_t kGone = -1;
    size_t n = ids.size();
    std::vector<size_t> next(n), previous(n);
    for (size_t i = 0; i < n; ++i) {
        next[i] = i + 1 < n ? i + 1 : kNone;
        previous[i] = i > 0 ? i - 1 : kNone;
    }
    std::priority_queue<Candidate> heap;
    auto offer = [&](size_t left) {
        if (left == kNone || next[left] == kNone) return;
        int32_t a = ids[left], b = ids[next[left]];
        if (const auto* found = merges.find(a, b)) heap.push({found->rank, left, a, b, found->id});
    };
    for (size_t i = 0; i + 1 < n; ++i) offer(i);
    while (!heap.empty()) {
        Candidate c = heap.top();
        heap.pop();
        size_t right = next[c.left];
        if (ids[c.left] != c.left_id || right == kNone || ids[right] != c.right_id) continue;
        ids[c.left] = c.merged;
        ids[right] = kGone;
        next[c.left] = next[right];
        if (next[right] != kNone) previous[next[right]] = c.left;
        offer(previous[c.left]);
        offer(c.left);
    }
    std::erase(ids, kGone);
}

void encode_word(std::string_view text, const Tables& t, Ids& out) {
    Ids ids = symbols(text, t);
    merge(ids, t.merges);
    out.insert(out.end(), ids.begin(), ids.end());
}

// Splits from number `first` on, then words.
void encode_split(std::string_view text, const Tables& t, size_t first, Ids& out) {
    if (first == t.splits.size()) return encode_word(text, t, out);
    for (std::string_view part : cut(text, t.splits[first])) encode_split(part, t, first + 1, out);
}

// Appends added tokens' ids to out and gives the stretches between them to f.
template <class F>
void between(std::string_view text, const AddedTokens& added, Ids& out, F f) {
    size_t stretch = 0;
    for (size_t i = 0; i < text.size() && !added.empty();) {
        size_t bytes = 0;
        int32_t id = added.match(text, i, bytes);
        if (id < 0) {
            ++i;
            continue;
        }
        if (i > stretch) f(text.substr(stretch, i - stretch));
        out.push_back(id);
        i += bytes;
        stretch = i;
    }
    if (stretch < text.size()) f(text.substr(stretch));
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<Tables> tables) : tables_(std::move(tables)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool begin) const {
    const Tables& t = *tables_;
    Ids out;
    if (begin) out = t.begin;
    between(text, t.added, out, [&](std::string_view raw) {
        std::string stretch = normalised(raw, t.replaces);
        between(stretch, t.added_normalised, out,
                [&](std::string_view part) { encode_split(part, t, 0, out); });
    });
    return out;
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids) const {
    const Tables& t = *tables_;
    std::string out;
    for (int32_t id : ids) {
        check_input(id >= 0 && id < size(), "token id ", id, " is outside the vocabulary of ", size());
        if (std::find(t.begin.begin(), t.begin.end(), id) != t.begin.end()) continue;
        auto byte = std::find(t.bytes.begin(), t.bytes.end(), id);
        if (byte != t.bytes.end()) {
            out += static_cast<char>(byte - t.bytes.begin());
            continue;
        }
        std::string piece(t.pieces.text(id));
        for (size_t i = t.replaces.size(); i-- > 0;) {
            const auto& [from, to] = t.replaces[i];
            if (!to.empty()) piece = replaced(piece, {to, from});
        }
        out += piece;
    }
    return out;
}

int64_t Tokenizer::size() const { return tables_->pieces.end(); }

std::optional<int32_t> Tokenizer::id_of(std::string_view piece) const {
    int32_t id = tables_->pieces.find(piece);
    return id < 0 ? std::nullopt : std::optional(id);
}

}  // namespace sana
