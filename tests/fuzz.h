// Random damage for readers of files: inputs that are nearly right, from a fixed seed and with a bound in time.
//
// Every run draws from its own generator, made of the seed and the run's number, so that run 1234 is the same on every
// machine however far the time reaches. SANA_FUZZ_SECONDS in the environment replaces the time of each call, for long
// searches; SANA_FUZZ_RUN=n does run n alone, for a debugger.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace sana::test {

// The corpus' inputs with one to eight changes each.
class Mutator {
public:
    Mutator(const std::vector<std::string>& corpus, uint64_t seed) : corpus_(corpus), random_(seed) {}

    std::string next() {
        std::string bytes = any_input();
        // Mostly a single change: after many of them nearly every reader stops at the first one.
        size_t changes = below(2) == 0 ? 1 : 1 + below(8);
        for (size_t i = 0; i < changes; ++i) change(bytes);
        return bytes;
    }

private:
    size_t below(size_t n) { return n == 0 ? 0 : static_cast<size_t>(random_() % n); }
    const std::string& any_input() { return corpus_[below(corpus_.size())]; }

    // Lengths are drawn small more often than large, so that text next to a change stays as it was.
    size_t length(size_t most) { return std::min(most, 1 + below(size_t{1} << below(10))); }

    void change(std::string& s) {
        size_t at = below(s.size()), rest = s.size() - at;
        switch (below(10)) {
            case 0:  // one bit
                if (!s.empty()) s[at] = static_cast<char>(s[at] ^ (1 << below(8)));
                break;
            case 1:  // one byte
                if (!s.empty()) s[at] = static_cast<char>(below(256));
                break;
            case 2: s.erase(at, length(rest)); break;
            case 3: s.insert(at, s.substr(at, length(rest))); break;  // a part twice
            case 4: {  // a part of some input, over or into this one
                const std::string& other = any_input();
                size_t from = below(other.size());
                std::string part = other.substr(from, length(other.size() - from));
                s.replace(at, below(2) == 0 ? 0 : std::min(rest, part.size()), part);
                break;
            }
            case 5: s.resize(at); break;  // the end is missing
            case 6: s.insert(at, std::string(length(4096), static_cast<char>(below(256)))); break;
            case 7: binary_number(s, at); break;
            case 8: decimal_number(s, at); break;
            case 9: s.replace(at, below(2) == 0 ? 0 : std::min<size_t>(rest, 1 + below(4)), word()); break;
        }
    }

    // A number where programs go wrong: near a power of two, near zero, or any.
    uint64_t edge() {
        uint64_t power = uint64_t{1} << below(64), near = below(3);
        switch (below(4)) {
            case 0: return power - 1 + near;
            case 1: return ~power + near;
            case 2: return near - 1;
            default: return random_();
        }
    }

    // Little or big endian, 1 to 8 bytes, over what is there.
    void binary_number(std::string& s, size_t at) {
        size_t width = size_t{1} << below(4);
        uint64_t value = edge();
        bool little = below(4) != 0;
        for (size_t i = 0; i < width && at + i < s.size(); ++i)
            s[at + i] = static_cast<char>(value >> (8 * (little ? i : width - 1 - i)));
    }

    // The next run of digits becomes another number.
    static bool digit(char c) { return c >= '0' && c <= '9'; }
    void decimal_number(std::string& s, size_t at) {
        while (at < s.size() && !digit(s[at])) ++at;
        size_t end = at;
        while (end < s.size() && digit(s[end])) ++end;
        std::string value =
            below(2) == 0 ? std::to_string(below(300)) : std::to_string(static_cast<int64_t>(edge()));
        s.replace(at, end - at, value);
    }

    std::string word() {
        static const std::vector<std::string> words = {"{",
                                                       "}",
                                                       "[",
                                                       "]",
                                                       ",",
                                                       ":",
                                                       "\"",
                                                       "\\",
                                                       "\\u0000",
                                                       "\\ud800",
                                                       "null",
                                                       "true",
                                                       "false",
                                                       "-1",
                                                       "0.5",
                                                       "1e999",
                                                       "-0",
                                                       "{}",
                                                       "[]",
                                                       "\"\"",
                                                       " ",
                                                       "\n",
                                                       "\t",
                                                       "- ",
                                                       "'",
                                                       "&a ",
                                                       "*a",
                                                       "\xEF\xBF",
                                                       "\xC3",
                                                       "\xF0\x9F",
                                                       "\xFF",
                                                       "../",
                                                       "/",
                                                       "%s%n",
                                                       "#",
                                                       std::string(1, '\0'),
                                                       std::string(8, '\0'),
                                                       std::string(8, '\xFF')};
        return words[below(words.size())];
    }

    const std::vector<std::string>& corpus_;
    std::mt19937_64 random_;
};

// f(bytes) for changed inputs until the time is over, at least once. f throws or makes a GoogleTest failure when the
// input is treated wrongly; the search then ends and names the run.
template <class F>
void fuzz(const std::vector<std::string>& corpus, double seconds, uint64_t seed, F f) {
    ASSERT_FALSE(corpus.empty());
    if (const char* longer = std::getenv("SANA_FUZZ_SECONDS")) seconds = std::atof(longer);
    const char* only = std::getenv("SANA_FUZZ_RUN");
    uint64_t run = only != nullptr ? std::strtoull(only, nullptr, 10) : 0;
    auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    auto report = [&](const std::string& bytes) {
        std::fprintf(stderr, "fuzz: seed %llu, run %llu (repeat with SANA_FUZZ_RUN), %zu bytes:\n%.*s\n",
                     static_cast<unsigned long long>(seed), static_cast<unsigned long long>(run),
                     bytes.size(), static_cast<int>(std::min<size_t>(bytes.size(), 2000)), bytes.data());
    };
    bool failed_before = ::testing::Test::HasFailure();
    do {
        std::string bytes = Mutator(corpus, seed * 0x9E3779B97F4A7C15u + run).next();
        try {
            f(bytes);
        } catch (...) {
            report(bytes);
            throw;
        }
        if (!failed_before && ::testing::Test::HasFailure()) {
            report(bytes);
            return;
        }
        ++run;
    } while (only == nullptr && std::chrono::steady_clock::now() < end);
    ::testing::Test::RecordProperty("fuzz_runs", std::to_string(run));
}

}  // namespace sana::test
