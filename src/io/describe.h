// Words for error messages about files: names made printable, and what a file is when it is not what was expected.
#pragma once

#include <string>
#include <string_view>

namespace sana {

// The text in double quotes, control and non-ASCII bytes as \xNN, shortened in the middle above 160 characters.
std::string in_quotes(std::string_view text);

// What the first bytes of a file show when it is a well-known kind of file that no reader here takes, with what to
// do: "a git-lfs pointer, not the file itself: run git lfs pull". Empty when nothing is recognised.
std::string describe_foreign(std::string_view first_bytes);

// Whether they are the start of a safetensors file: a length below 2^32 and the brace of a JSON object. To be asked
// first, since the length can look like another format's signature.
bool looks_like_safetensors(std::string_view first_bytes);

bool is_utf8(std::string_view text);

}  // namespace sana
