#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "folders.h"
#include "text/prompt.h"

using namespace sana;
using Ids = std::vector<int32_t>;

namespace {

const Tokenizer* real_tokenizer() {
    static const Tokenizer* tokenizer = [] {
        const char* folder = std::getenv("SANA_TOKENIZER");
        return folder == nullptr ? nullptr : new Tokenizer(Tokenizer::load(folder));
    }();
    return tokenizer;
}

#define NEEDS_VOCABULARY()                                          \
    if (real_tokenizer() == nullptr)                                \
    GTEST_SKIP() << "SANA_TOKENIZER names no folder with the real " \
                    "vocabulary"

// A vocabulary small enough to follow by hand.
nlohmann::json small_tokenizer() {
    return nlohmann::json::parse(R"({
      "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
      "added_tokens": [{"id": 0, "content": "<pad>"}, {"id": 1, "content": "<bos>"}, {"id": 2, "content": "\n"},
                       {"id": 3, "content": "\n\n"}],
      "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<bos>"}}, {"Sequence": {"id": "A"}}]},
      "model": {"type": "BPE", "byte_fallback": true, "fuse_unk": true, "unk_token": "<pad>",
        "vocab": {"<pad>": 0, "<bos>": 1, "a": 4, "b": 5, "c": 6, "▁": 7, "ab": 8, "abc": 9, "bc": 10, "aa": 11,
                  "<0xC3>": 12, "<0xA9>": 13, "▁a": 14},
        "merges": ["a b", ["ab", "c"], "b c", "a a", "▁ a"]}})");
}

Ids encode(const nlohmann::json& file, const std::string& text) {
    return Tokenizer::parse(file.dump(), "small").encode(text);
}

}  // namespace

TEST(TokenizerGolden, EveryCase) {
    NEEDS_VOCABULARY();
    std::ifstream in(test::golden_folder() + "/tokenizer_cases.json");
    ASSERT_TRUE(in.good());
    nlohmann::json cases = nlohmann::json::parse(in);
    ASSERT_FALSE(cases.empty());
    for (const auto& item : cases) {
        std::string text = item.at("text").get<std::string>();
        EXPECT_EQ(real_tokenizer()->encode(text), item.at("ids").get<Ids>()) << text.substr(0, 80);
    }
}

TEST(Tokenizer, VectorsOfTheGemmaVocabulary) {
    NEEDS_VOCABULARY();
    const std::pair<const char*, Ids> cases[] = {
        {"", {2}},
        {"a cat", {2, 235250, 4401}},
        {"Hello, world!", {2, 4521, 235269, 2134, 235341}},
        {"hello  world", {2, 17534, 139, 9097}},
        {"  x", {2, 139, 235297}},
        {"a\nb", {2, 235250, 108, 235268}},
        {"a\tb", {2, 235250, 226, 235268}},
        {"a\t\tb", {2, 235250, 255969, 235268}},
        {"\r", {2, 235316}},
        {"caf\u00e9", {2, 81453}},
        {" \U0001FAE8", {2, 235248, 457, 376, 388, 385}},
        {"a cat playing piano. motion score: 30.",
         {2, 235250, 4401, 6155, 16748, 235265, 8252, 7716, 235292, 235248, 235304, 235276, 235265}},
    };
    for (const auto& [text, ids] : cases) EXPECT_EQ(real_tokenizer()->encode(text), ids) << text;
    EXPECT_EQ(real_tokenizer()->size(), 256000);
}

TEST(Tokenizer, LongTextsAreFast) {
    NEEDS_VOCABULARY();
    std::string text;
    while (text.size() < 100000) text += "The quick brown fox jumps over the lazy dog and runs away; ";
    auto start = std::chrono::steady_clock::now();
    EXPECT_GT(real_tokenizer()->encode(text).size(), 10000u);
    std::string same(100000, 'a');
    EXPECT_GT(real_tokenizer()->encode(same).size(), 1000u);
    // A quadratic merge loop takes minutes here; the bound leaves room for slow machines and sanitizers.
    EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 20.0);
}

TEST(Tokenizer, MergesByRankThenFromTheLeft) {
    EXPECT_EQ(encode(small_tokenizer(), "abc"), (Ids{1, 9}));
    EXPECT_EQ(encode(small_tokenizer(), "bca"), (Ids{1, 10, 4}));
    EXPECT_EQ(encode(small_tokenizer(), "aaa"), (Ids{1, 11, 4}));
    EXPECT_EQ(encode(small_tokenizer(), "aabc"), (Ids{1, 4, 9}));  // a b ranks before a a
    EXPECT_EQ(encode(small_tokenizer(), " a"), (Ids{1, 14}));
}

TEST(Tokenizer, AddedTokensAreCutOutFirstAndLongest) {
    EXPECT_EQ(encode(small_tokenizer(), "a\n\n\nb"), (Ids{1, 4, 3, 2, 5}));
    EXPECT_EQ(encode(small_tokenizer(), "a<bos>b"), (Ids{1, 4, 1, 5}));
}

TEST(Tokenizer, BytesAndUnknowns) {
    EXPECT_EQ(encode(small_tokenizer(), "a\u00e9"), (Ids{1, 4, 12, 13}));
    EXPECT_EQ(encode(small_tokenizer(), "a\xC3z"),
              (Ids{1, 4, 12, 0}));  // a broken sequence, then an unknown letter
    EXPECT_EQ(encode(small_tokenizer(), "xyzb"), (Ids{1, 0, 5}));  // unknowns in a row are one
    nlohmann::json file = small_tokenizer();
    file["model"]["fuse_unk"] = false;
    EXPECT_EQ(encode(file, "xyb"), (Ids{1, 0, 0, 5}));
}

TEST(Tokenizer, DecodesWhatItEncoded) {
    Tokenizer tokenizer = Tokenizer::parse(small_tokenizer().dump(), "small");
    EXPECT_EQ(tokenizer.decode(tokenizer.encode("ab c\n\na\u00e9")), "ab c\n\na\u00e9");
    EXPECT_THROW(tokenizer.decode({99}), InputError);
}

TEST(Tokenizer, RefusesWhatItCannotRead) {
    auto broken = [](auto change) {
        nlohmann::json file = small_tokenizer();
        change(file);
        return file.dump();
    };
    const std::string files[] = {
        "",
        "{",
        "[]",
        "null",
        std::string(10000, '['),
        broken([](auto& f) { f.erase("model"); }),
        broken([](auto& f) { f["model"]["type"] = "WordPiece"; }),
        broken([](auto& f) { f["model"]["vocab"]["q"] = -1; }),
        broken([](auto& f) { f["model"]["vocab"]["q"] = 1ull << 40; }),
        broken([](auto& f) { f["model"]["vocab"]["q"] = 4; }),  // id twice
        broken([](auto& f) { f["model"]["vocab"]["q"] = "4"; }),
        broken([](auto& f) { f["model"]["merges"].push_back("a zz"); }),
        broken([](auto& f) { f["model"]["merges"].push_back("nospace"); }),
        broken([](auto& f) { f["model"]["merges"].push_back(7); }),
        broken([](auto& f) { f["normalizer"]["type"] = "NFKC"; }),
        broken([](auto& f) {
            f["pre_tokenizer"] = {{"type", "ByteLevel"}};
        }),
        broken([](auto& f) { f["post_processor"]["type"] = "BertProcessing"; }),
        broken([](auto& f) { f["added_tokens"][0]["lstrip"] = true; }),
        broken([](auto& f) { f["added_tokens"][0].erase("id"); }),
    };
    for (const std::string& file : files) {
        EXPECT_THROW(Tokenizer::parse(file, "broken"), InputError) << file.substr(0, 200);
    }
    EXPECT_THROW(Tokenizer::load("/nowhere/tokenizer.json"), InputError);
}
