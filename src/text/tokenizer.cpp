#include "text/tokenizer.h"

#include <algorithm>
#include <queue>

#include "core/check.h"
#include "text/tokenizer_tables.h"
#include "text/unicode.h"

namespace sana {

namespace {

std::string replaced(std::string_view text, const std::string& from, const std::string& to) {
    if (from.empty()) return std::string(text);
    std::string out;
    for (size_t i = 0; i < text.size();) {
        if (text.compare(i, from.size(), from) == 0) {
            out += to;
            i += from.size();
        } else {
            out += text[i++];
        }
    }
    return out;
}

// A stretch as a linked list of symbols; candidates wait in a heap and are skipped when a neighbour has changed.
class Merger {
public:
    template <class Lookup>
    static void run(std::vector<int32_t>& ids, Lookup lookup) {
        struct Candidate {
            int32_t rank;
            size_t left;
            int32_t left_id, right_id, merged;
            bool operator<(
                const Candidate& other) const {  // the heap's top is the lowest rank, then the leftmost
                return std::pair(rank, left) > std::pair(other.rank, other.left);
            }
        };
        constexpr size_t kNone = SIZE_MAX;
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
            if (const auto* merge = lookup(a, b)) heap.push({merge->rank, left, a, b, merge->id});
        };
        for (size_t i = 0; i + 1 < n; ++i) offer(i);
        constexpr int32_t kGone = -1;
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
};

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<Tables> tables) : tables_(std::move(tables)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool begin) const {
    const Tables& t = *tables_;
    std::vector<int32_t> out;
    if (begin) out = t.begin;
    auto encode_stretch = [&](std::string_view raw) {
        std::string stretch = replaced(raw, t.replace_from, t.replace_to);
        std::vector<int32_t> ids;
        for (size_t i = 0; i < stretch.size();) {
            size_t start = i;
            next_code_point(stretch, i);
            auto it = t.ids.find(std::string_view(stretch).substr(start, i - start));
            if (it != t.ids.end()) {
                ids.push_back(it->second);
                continue;
            }
            bool covered = std::all_of(stretch.begin() + static_cast<std::ptrdiff_t>(start),
                                       stretch.begin() + static_cast<std::ptrdiff_t>(i),
                                       [&](char c) { return t.bytes[static_cast<unsigned char>(c)] >= 0; });
            if (covered) {
                for (size_t k = start; k < i; ++k)
                    ids.push_back(t.bytes[static_cast<unsigned char>(stretch[k])]);
            } else if (t.unknown >= 0 && !(t.fuse_unknown && !ids.empty() && ids.back() == t.unknown)) {
                ids.push_back(t.unknown);
            }
        }
        Merger::run(ids, [&](int32_t a, int32_t b) -> const Tables::Merge* {
            auto it = t.merges.find(Tables::pair(a, b));
            return it == t.merges.end() ? nullptr : &it->second;
        });
        out.insert(out.end(), ids.begin(), ids.end());
    };
    size_t stretch = 0;
    for (size_t i = 0; i < text.size();) {
        const Tables::Added* match = nullptr;
        for (const Tables::Added& added : t.added[static_cast<unsigned char>(text[i])]) {
            if (text.compare(i, added.text.size(), added.text) == 0) {
                match = &added;
                break;
            }
        }
        if (match == nullptr) {
            ++i;
            continue;
        }
        encode_stretch(text.substr(stretch, i - stretch));
        out.push_back(match->id);
        i += match->text.size();
        stretch = i;
    }
    encode_stretch(text.substr(stretch));
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
        } else {
            out += replaced(t.pieces[static_cast<size_t>(id)], t.replace_to, t.replace_from);
        }
    }
    return out;
}

int64_t Tokenizer::size() const { return static_cast<int64_t>(tables_->pieces.size()); }

std::optional<int32_t> Tokenizer::id_of(std::string_view piece) const {
    auto it = tables_->ids.find(piece);
    return it == tables_->ids.end() ? std::nullopt : std::optional(it->second);
}

}  // namespace sana
