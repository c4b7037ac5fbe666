// Element types. Storage types are data; arithmetic is float (double for F64, the oracle's type, CPU only).
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/check.h"

namespace sana {

enum class DType : uint8_t { F32, F64, BF16, F16, F8E4M3, F8E5M2, I64, I32, I16, I8, U8, Bool };

// bfloat16: the upper half of a float. Conversion from float rounds to nearest even and keeps NaN.
struct bf16 {
    uint16_t bits = 0;

    bf16() = default;
    explicit bf16(float value) {
        uint32_t u = std::bit_cast<uint32_t>(value);
        uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
        bool nan = (u & 0x7fffffffu) > 0x7f800000u;
        bits = static_cast<uint16_t>(nan ? (u >> 16) | 0x40u : rounded);
    }
    operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

// IEEE half. Conversion from float rounds to nearest even; overflow gives infinity.
struct f16 {
    uint16_t bits = 0;

    f16() = default;
    explicit f16(float value);
    operator float() const;
};

int64_t size_of(DType dtype);           // bytes of one element
std::string_view name_of(DType dtype);  // "fp32", "bf16", ...
bool is_float(DType dtype);
std::optional<DType> parse_dtype(std::string_view name);  // accepts fp32 f32 float32 F32 BF16 ...
void print(std::string& out, DType dtype);

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
    return DType::F32;
}
template <>
constexpr DType dtype_of<double>() {
    return DType::F64;
}
template <>
constexpr DType dtype_of<bf16>() {
    return DType::BF16;
}
template <>
constexpr DType dtype_of<f16>() {
    return DType::F16;
}
template <>
constexpr DType dtype_of<int64_t>() {
    return DType::I64;
}
template <>
constexpr DType dtype_of<int32_t>() {
    return DType::I32;
}
template <>
constexpr DType dtype_of<uint8_t>() {
    return DType::U8;
}

// The type that arithmetic on T uses.
template <class T>
struct Compute {
    using type = float;
};
template <>
struct Compute<double> {
    using type = double;
};
template <class T>
using compute_t = typename Compute<T>::type;

// Calls f.operator()<T>() for the C++ type of a floating dtype that the CPU computes in.
template <class F>
decltype(auto) dispatch_float(DType dtype, F&& f) {
    switch (dtype) {
        case DType::F32: return f.template operator()<float>();
        case DType::F64: return f.template operator()<double>();
        case DType::BF16: return f.template operator()<bf16>();
        case DType::F16: return f.template operator()<f16>();
        default: fail("dtype ", dtype, " is not one that ops compute in (fp32, bf16, fp16, fp64)");
    }
}

}  // namespace sana
