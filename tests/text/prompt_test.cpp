// Expected lower case and white space: Python's str.lower() and str.strip().
#include "text/prompt.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/hash.h"
#include "text/unicode.h"

using namespace sana;

namespace {

Tokenizer letters() {
    nlohmann::json file = {
        {"model", {{"type", "BPE"}, {"vocab", {{"<bos>", 0}}}, {"merges", nlohmann::json::array()}}},
        {"post_processor",
         {{"type", "TemplateProcessing"},
          {"single", {{{"SpecialToken", {{"id", "<bos>"}}}}, {{"Sequence", {{"id", "A"}}}}}}}}};
    for (char c = ' '; c <= '~'; ++c) file["model"]["vocab"][std::string(1, c)] = c;
    file["model"]["vocab"][": "] = 200;
    file["model"]["vocab"][" x"] = 201;
    file["model"]["merges"] = nlohmann::json::parse(R"([[" ", "x"]])");
    return Tokenizer::parse(file.dump(), "letters");
}

std::string write_file(const std::string& name, const std::string& text) {
    std::string path = ::testing::TempDir() + name;
    std::ofstream(path) << text;
    return path;
}

}  // namespace

TEST(Prompt, LowerCaseAndStripAsPython) {
    EXPECT_EQ(
        lower_case("A Cat, 4K \u00c4\u00d6\u00dc \u0130 \u0416\u0429 \u03a9 \uff21 \u1e9e \u10a0 \U00010400"),
        "a cat, 4k \u00e4\u00f6\u00fc i\u0307 \u0436\u0449 \u03c9 \uff41 \u00df \u2d00 \U00010428");
    EXPECT_EQ(lower_case("\u039f\u0394\u039f\u03a3 \u03a3\u0391"),
              "\u03bf\u03b4\u03bf\u03c2 \u03c3\u03b1");  // final sigma
    EXPECT_EQ(lower_case("\xff"
                         "A\xC3"),
              "\xff"
              "a\xC3");  // invalid bytes stay
    EXPECT_EQ(strip("\u3000 \t a b\u00a0\n\x1f"), "a b");
    EXPECT_EQ(strip(" \u2003\r\n"), "");
    EXPECT_EQ(clean_prompt("  A Cat ", false), "a cat");
    EXPECT_EQ(clean_prompt("  A Cat ", true), "A Cat");
    EXPECT_EQ(motion_suffix(30), " motion score: 30.");
    EXPECT_EQ(motion_suffix(0), "");
}

TEST(Prompt, WindowWithoutInstruction) {
    PromptTokens tokens = tokenize_prompt(letters(), "", "abc", 6);
    EXPECT_EQ(tokens.length, 6);
    EXPECT_EQ(tokens.ids, (std::vector<int32_t>{0, 'a', 'b', 'c'}));
    for (int64_t r = 0; r < 6; ++r) EXPECT_EQ(tokens.position(r), r);
    EXPECT_TRUE(tokens.kept(3));
    EXPECT_FALSE(tokens.kept(4));
    EXPECT_EQ(tokens.cut, 0);
    EXPECT_EQ(tokenize_prompt(letters(), "", "abcdefgh", 6).cut, 3);
    EXPECT_EQ(tokenize_prompt(letters(), "", "", 6).ids, (std::vector<int32_t>{0}));
}

// The instruction ends in a space, which merges into the prompt's first token when that can take it.
TEST(Prompt, WindowBehindAnInstruction) {
    PromptTokens merged = tokenize_prompt(letters(), "do: ", "xyz", 6);
    // <bos> d o : [space] alone are 5 tokens: length = 5 + 6 - 2.
    EXPECT_EQ(merged.length, 9);
    EXPECT_EQ(merged.ids, (std::vector<int32_t>{0, 'd', 'o', ':', 201, 'y', 'z'}));
    EXPECT_EQ(merged.position(0), 0);
    EXPECT_EQ(merged.position(1), 4);  // the prompt's first token
    EXPECT_EQ(merged.position(5), 8);
    EXPECT_TRUE(merged.kept(3));
    EXPECT_FALSE(merged.kept(4));
    PromptTokens apart = tokenize_prompt(letters(), "do: ", "9", 6);
    EXPECT_EQ(apart.ids[static_cast<size_t>(apart.position(1))], ' ');
    EXPECT_EQ(tokenize_prompt(letters(), "do: ", std::string(50, 'y'), 6).cut, 46);
}

TEST(Prompt, TemplatesFromTheirFiles) {
    std::string yaml = write_file("template.yaml", R"(model: {a: 1}
text_encoder:
  text_encoder_name: gemma-2-2b-it
  chi_prompt:
    - 'Given a user''s prompt:'
    - "- Short: \"x\""
    - plain words
    - 'User Prompt: '
)");
    EXPECT_EQ(load_prompt_template(yaml).instruction,
              "Given a user's prompt:\n- Short: \"x\"\nplain words\nUser Prompt: ");
    EXPECT_EQ(load_prompt_template(write_file("t.json", R"(["a", "b: "])")).instruction, "a\nb: ");
    EXPECT_EQ(load_prompt_template(write_file("u.json", R"({"prompt_instruction": ["c", "d"]})")).instruction,
              "c\nd");
    EXPECT_EQ(load_prompt_template(write_file("t.txt", "as it is: \n")).instruction, "as it is: ");
    EXPECT_THROW(load_prompt_template(write_file("bad.yaml", "a: [1, 2")), InputError);
    EXPECT_THROW(load_prompt_template(write_file("none.yaml", "a: 1")), InputError);
    EXPECT_THROW(load_prompt_template(write_file("bad.json", "{\"a\": 1}")), InputError);
    EXPECT_THROW(load_prompt_template("/nowhere/x.txt"), InputError);
    EXPECT_EQ(describe({"own", "file"}), "own wording, SHA-256 " + sha256_hex("own").substr(0, 12));
}

TEST(Hash, Sha256KnownAnswers) {
    EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(sha256_hex(std::string(1000000, 'a')),
              "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}
