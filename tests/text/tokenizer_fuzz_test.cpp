// Damaged tokenizer.json files: an InputError or a tokenizer that works, nothing else. SANA_FUZZ_SECONDS prolongs it.
#include "../fuzz.h"
#include "core/check.h"
#include "text/tokenizer.h"

using namespace sana;
using namespace sana::test;

TEST(TokenizerFuzz, DamagedFiles) {
    const std::vector<std::string> corpus = {
        R"({"version": "1.0", "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
"added_tokens": [{"id": 0, "content": "<pad>", "special": true, "normalized": false}, {"id": 1, "content": "<bos>"}],
"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<bos>"}}, {"Sequence": {"id": "A"}}]},
"model": {"type": "BPE", "byte_fallback": true, "fuse_unk": true, "unk_token": "<pad>", "dropout": null,
"vocab": {"<pad>": 0, "<bos>": 1, "a": 4, "b": 5, "c": 6, "▁": 7, "ab": 8, "abc": 9, "<0xC3>": 12, "<0xA9>": 13},
"merges": ["a b", ["ab", "c"]]}})",
        R"({"model": {"vocab": {"x": 0, "y": 1, "xy": 2}, "merges": ["x y"]}, "pre_tokenizer": null})",
        R"({"model": {"type": "BPE", "vocab": {"\u00e9": 0, "\ud83d\ude00": 1}, "merges": []}, "added_tokens": null})",
    };
    fuzz(corpus, 3, 11, [](const std::string& bytes) {
        try {
            Tokenizer tokenizer = Tokenizer::parse(bytes, "fuzz");
            for (int32_t id : tokenizer.encode("ab c\n\u00e9 \xff<bos>abcabc"))
                EXPECT_LT(id, tokenizer.size());
        } catch (const InputError&) {
        }
    });
}
