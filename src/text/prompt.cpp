#include "text/prompt.h"

#include <algorithm>

#include "core/check.h"
#include "core/hash.h"
#include "text/unicode.h"

namespace sana {

std::string describe(const PromptTemplate& t) {
    if (t.instruction.empty()) return "none";
    std::string hash = sha256_hex(t.instruction);
    if (hash == "5f0df7639992de65e338ca02f4a0d1e6f5ea5d4ca243f0a3bf0a35943bd5b747")
        return "video wording (diffusers)";
    if (hash == "62b9ab89eebb0ac5ee4d264bf96bf19d2b81f504bc3852500efeaf5a34d638b1")
        return "image wording (NVlabs/Sana)";
    return "own wording, SHA-256 " + hash.substr(0, 12);
}

std::string clean_prompt(std::string_view prompt, bool keep_case) {
    return std::string(strip(keep_case ? std::string(prompt) : lower_case(prompt)));
}

std::string motion_suffix(int64_t score) {
    return score > 0 ? join(" motion score: ", score, '.') : std::string();
}

PromptTokens tokenize_prompt(const Tokenizer& tokenizer, const std::string& instruction,
                             const std::string& prompt, int64_t max_length) {
    check(max_length >= 2, "a window of ", max_length, " text positions");
    PromptTokens out;
    out.max_length = max_length;
    int64_t head = instruction.empty() ? 0 : static_cast<int64_t>(tokenizer.encode(instruction).size());
    // <bos> and the space at its end are the least that an instruction is; the window never starts before the text.
    out.length = std::max<int64_t>(2, head) + max_length - 2;
    out.ids = tokenizer.encode(instruction + prompt);
    out.cut = std::max<int64_t>(0, static_cast<int64_t>(out.ids.size()) - out.length);
    if (out.cut > 0) out.ids.resize(static_cast<size_t>(out.length));
    check_input(!out.ids.empty(), "the tokenizer made no token; its tokenizer.json puts no <bos> in front");
    return out;
}

}  // namespace sana
