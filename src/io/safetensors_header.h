// The JSON header of a safetensors file: parsed strictly, checked for itself.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "core/dtype.h"
#include "core/shape.h"

namespace sana {

struct SafetensorsEntry {
    DType dtype = DType::F32;
    Shape shape;
    int64_t begin = 0, end = 0;  // bytes from the end of the header
};

struct SafetensorsHeader {
    std::map<std::string, SafetensorsEntry> entries;
    std::map<std::string, std::string> metadata;
};

// The format's bound on the header's length.
inline constexpr int64_t kLargestHeader = 100'000'000;

// json: the header's text; data_bytes: the length of the file behind it; path: for messages. After it returns, every
// entry lies inside the data, has the size of its shape, and together they cover the data without gap or overlap.
SafetensorsHeader parse_safetensors_header(std::string_view json, int64_t data_bytes,
                                           const std::string& path);

// The format's name of a dtype: "F32", "BF16", ...
std::string_view safetensors_dtype(DType dtype);

}  // namespace sana
