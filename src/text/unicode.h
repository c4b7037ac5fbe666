// UTF-8, lower case and white space as Python's str has them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sana {

// The next code point of text at position i, which moves past it; -1 for a byte that starts no valid sequence (i moves
// past that byte alone).
int32_t next_code_point(std::string_view text, size_t& i);

void append_utf8(std::string& out, int32_t code_point);

// Unicode lower case; a capital sigma at the end of a word becomes the final sigma, invalid bytes stay.
std::string lower_case(std::string_view text);

// Without leading and trailing Unicode white space.
std::string_view strip(std::string_view text);

}  // namespace sana
