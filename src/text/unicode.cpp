#include "text/unicode.h"

#include <algorithm>

#include "text/lower_case_table.h"

namespace sana {

namespace {

int32_t lower(int32_t c) {
    auto it = std::upper_bound(std::begin(kLowerCaseRuns), std::end(kLowerCaseRuns), c,
                               [](int32_t code, const LowerCaseRun& run) { return code < run.first; });
    // Runs of step 2 interleave, so an earlier one may be the right one.
    for (int back = 0; back < 3 && it != std::begin(kLowerCaseRuns); ++back) {
        --it;
        if (c >= it->first && c <= it->last && (c - it->first) % it->step == 0) return c + it->delta;
    }
    return c;
}

template <size_t N>
bool contains(const CodeRange (&ranges)[N], int32_t c) {
    auto it = std::upper_bound(std::begin(ranges), std::end(ranges), c,
                               [](int32_t code, const CodeRange& range) { return code < range.first; });
    return it != std::begin(ranges) && c <= std::prev(it)->last;
}

// Whether a cased letter follows, behind any number of case-ignorable code points.
bool cased_follows(std::string_view text, size_t i) {
    while (i < text.size()) {
        int32_t c = next_code_point(text, i);
        if (!contains(kCaseIgnorable, c)) return contains(kCased, c);
    }
    return false;
}

bool white_space(int32_t c) {
    return (c >= 0x9 && c <= 0xd) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}

}  // namespace

int32_t next_code_point(std::string_view text, size_t& i) {
    auto byte = [&](size_t k) { return static_cast<unsigned char>(text[k]); };
    unsigned first = byte(i);
    size_t extra = first < 0x80                    ? 0
                   : first >= 0xc2 && first < 0xe0 ? 1
                   : first >= 0xe0 && first < 0xf0 ? 2
                   : first >= 0xf0 && first < 0xf5 ? 3
                                                   : 4;
    if (extra == 4 || i + extra >= text.size() + (extra == 0 ? 1 : 0)) {
        ++i;
        return -1;
    }
    int32_t code = static_cast<int32_t>(extra == 0 ? first : first & (0x3fu >> extra));
    for (size_t k = 1; k <= extra; ++k) {
        if ((byte(i + k) & 0xc0) != 0x80) {
            ++i;
            return -1;
        }
        code = (code << 6) | (byte(i + k) & 0x3f);
    }
    bool overlong = (extra == 2 && code < 0x800) || (extra == 3 && code < 0x10000);
    if (overlong || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
        ++i;
        return -1;
    }
    i += extra + 1;
    return code;
}

void append_utf8(std::string& out, int32_t c) {
    auto put = [&](int32_t byte) { out += static_cast<char>(byte); };
    if (c < 0x80) {
        put(c);
    } else if (c < 0x800) {
        put(0xc0 | (c >> 6));
        put(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        put(0xe0 | (c >> 12));
        put(0x80 | ((c >> 6) & 0x3f));
        put(0x80 | (c & 0x3f));
    } else {
        put(0xf0 | (c >> 18));
        put(0x80 | ((c >> 12) & 0x3f));
        put(0x80 | ((c >> 6) & 0x3f));
        put(0x80 | (c & 0x3f));
    }
}

std::string lower_case(std::string_view text) {
    constexpr int32_t kSigma = 0x3a3, kFinalSigma = 0x3c2, kDottedI = 0x130;
    std::string out;
    out.reserve(text.size());
    bool cased_before = false;  // the nearest code point before that is not case-ignorable is cased
    for (size_t i = 0; i < text.size();) {
        size_t start = i;
        int32_t c = next_code_point(text, i);
        if (c < 0) {
            out += text[start];
        } else if (c == kDottedI) {
            out += "i\xcc\x87";
        } else if (c == kSigma) {
            append_utf8(out, cased_before && !cased_follows(text, i) ? kFinalSigma : lower(c));
        } else {
            append_utf8(out, lower(c));
        }
        if (!contains(kCaseIgnorable, c)) cased_before = contains(kCased, c);
    }
    return out;
}

std::string_view strip(std::string_view text) {
    size_t start = 0, end = 0;
    bool seen = false;
    for (size_t i = 0; i < text.size();) {
        size_t at = i;
        int32_t c = next_code_point(text, i);
        if (white_space(c)) continue;
        if (!seen) start = at;
        seen = true;
        end = i;
    }
    return seen ? text.substr(start, end - start) : std::string_view();
}

}  // namespace sana
