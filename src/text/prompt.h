// From a prompt to the tokens that the text encoder sees and the positions that the transformer keeps.
// Source: diffusers SanaVideoPipeline (encode_prompt), NVlabs/Sana (chi_prompt).
#pragma once

#include <string>

#include "text/tokenizer.h"

namespace sana {

// The instruction that a model puts before every positive prompt, with no separator. Empty: none.
struct PromptTemplate {
    std::string instruction;
    std::string source = "none";  // where it came from, for messages
};

// From a file: a YAML configuration of the official repository (text_encoder.chi_prompt, a list of strings, joined by
// newlines), a JSON list of strings or object with prompt_instruction or instruction, or any other text as it is but
// for one newline at its end. InputError for a file of another form, and above 1 MiB.
PromptTemplate load_prompt_template(const std::string& path);

// "video wording (diffusers)", "image wording (NVlabs/Sana)" or "own wording", by the SHA-256 of the text.
std::string describe(const PromptTemplate& prompt_template);

// Lower case and stripped, as the reference pipeline does with every prompt; keep_case: stripped only.
std::string clean_prompt(std::string_view prompt, bool keep_case);

// " motion score: N." for N > 0; nothing for 0.
std::string motion_suffix(int64_t score);

// A window of max_length positions out of the encoded text: position 0 (<bos>) and the last max_length - 1 of
// `length` positions. Positions from ids.size() on are padding.
struct PromptTokens {
    std::vector<int32_t> ids;  // the real tokens, at most `length`
    int64_t length = 0;        // with an instruction: its tokens + max_length - 2; without: max_length
    int64_t max_length = 300;
    int64_t cut = 0;  // tokens that did not fit

    // Position in the encoded text of row r of the window.
    int64_t position(int64_t r) const { return r == 0 ? 0 : length - max_length + r; }
    bool kept(int64_t r) const { return position(r) < static_cast<int64_t>(ids.size()); }
};
PromptTokens tokenize_prompt(const Tokenizer& tokenizer, const std::string& instruction,
                             const std::string& prompt, int64_t max_length = 300);

}  // namespace sana
