#include "core/dtype.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace sana {

namespace {

struct Info {
    DType dtype;
    int64_t size;
    std::string_view name;
    std::array<std::string_view, 3> aliases;
};

constexpr Info kInfo[] = {
    {DType::F32, 4, "fp32", {"f32", "float32", "float"}},
    {DType::F64, 8, "fp64", {"f64", "float64", "double"}},
    {DType::BF16, 2, "bf16", {"bfloat16", "", ""}},
    {DType::F16, 2, "fp16", {"f16", "float16", "half"}},
    {DType::F8E4M3, 1, "fp8", {"f8_e4m3", "float8_e4m3fn", ""}},
    {DType::F8E5M2, 1, "fp8e5m2", {"f8_e5m2", "float8_e5m2", ""}},
    {DType::I64, 8, "int64", {"i64", "", ""}},
    {DType::I32, 4, "int32", {"i32", "", ""}},
    {DType::I16, 2, "int16", {"i16", "", ""}},
    {DType::I8, 1, "int8", {"i8", "", ""}},
    {DType::U8, 1, "uint8", {"u8", "", ""}},
    {DType::Bool, 1, "bool", {"", "", ""}},
};

const Info& info(DType dtype) { return kInfo[static_cast<size_t>(dtype)]; }

}  // namespace

f16::f16(float value) {
    uint32_t u = std::bit_cast<uint32_t>(value);
    uint32_t sign = (u >> 16) & 0x8000u;
    uint32_t magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
        bits = static_cast<uint16_t>(sign | 0x7e00u);
    } else if (magnitude >= 0x477ff000u) {  // rounds to 65536 or more
        bits = static_cast<uint16_t>(sign | 0x7c00u);
    } else if (magnitude < 0x38800000u) {  // below the smallest normal half: add and let the float unit round
        float shifted = std::bit_cast<float>(magnitude) + 0.5f;
        bits = static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
    } else {
        uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
        bits = static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
    }
}

f16::operator float() const {
    uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
    uint32_t exponent = (bits >> 10) & 0x1fu;
    uint32_t mantissa = bits & 0x3ffu;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
    if (exponent == 0) {
        float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
        return sign != 0 ? -magnitude : magnitude;
    }
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

int64_t size_of(DType dtype) { return info(dtype).size; }

std::string_view name_of(DType dtype) { return info(dtype).name; }

bool is_float(DType dtype) { return dtype <= DType::F8E5M2; }

std::optional<DType> parse_dtype(std::string_view name) {
    std::string lower(name);
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    for (const Info& i : kInfo) {
        if (lower == i.name) return i.dtype;
        for (std::string_view alias : i.aliases) {
            if (!alias.empty() && lower == alias) return i.dtype;
        }
    }
    return std::nullopt;
}

void print(std::string& out, DType dtype) { out += name_of(dtype); }

}  // namespace sana
