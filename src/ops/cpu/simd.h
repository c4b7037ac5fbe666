// Branch-free elementary functions that the compiler vectorises inside loops, and rows between storage and compute types.
// float: Cephes-style polynomials, a few units in the last place; double: the C library.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/dtype.h"
#include "ops/linear.h"

namespace sana::cpu {

inline double exp_(double x) { return std::exp(x); }

// exp(x) = 2^n * p(r), n = round(x / ln 2), |r| <= ln(2)/2. Above 88.72 infinity, below -87.33 zero, NaN stays NaN.
inline float exp_(float x) {
    float clamped = x < -87.33f ? -87.33f : (x > 88.72f ? 88.72f : x);
    float n = clamped * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds to nearest
    int32_t exponent = std::bit_cast<int32_t>(n) - 0x4b400000;
    n -= 12582912.0f;
    float r = clamped - n * 0.693359375f;
    r += n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    // Two factors, because 2^128 has no float.
    int32_t first = exponent / 2, second = exponent - first;
    float result = p * std::bit_cast<float>((first + 127) << 23) * std::bit_cast<float>((second + 127) << 23);
    result = x < -87.33f ? 0.0f : result;
    result = x > 88.72f ? std::bit_cast<float>(0x7f800000) : result;
    return x != x ? x : result;
}

inline double tanh_(double x) { return std::tanh(x); }

// Odd polynomial near zero, where 1 - 2 / (exp(2x) + 1) would cancel.
inline float tanh_(float x) {
    float s = x * x;
    float p = -5.70498872745e-3f;
    p = p * s + 2.06390887954e-2f;
    p = p * s - 5.37397155531e-2f;
    p = p * s + 1.33314422036e-1f;
    p = p * s - 3.33332819422e-1f;
    float small = p * s * x + x;
    float magnitude = x < 0 ? -x : x;
    float large = 1.0f - 2.0f / (exp_(2.0f * magnitude) + 1.0f);
    large = x < 0 ? -large : large;
    return magnitude < 0.625f ? small : large;
}

template <class C>
inline C sigmoid_(C x) {
    return C(1) / (C(1) + exp_(-x));
}
template <class C>
inline C silu_(C x) {
    return x / (C(1) + exp_(-x));
}
template <class C>
inline C gelu_tanh_(C x) {
    // 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3)
    C u = C(0.7978845608028654) * (x + C(0.044715) * x * x * x);
    return x / (C(1) + exp_(-2 * u));
}

template <class C>
void activate_row(Activation activation, C* x, int64_t n) {
    switch (activation) {
        case Activation::none: return;
        case Activation::relu:
#pragma omp simd
            for (int64_t i = 0; i < n; ++i) x[i] = x[i] < 0 ? C(0) : x[i];
            return;
        case Activation::silu:
#pragma omp simd
            for (int64_t i = 0; i < n; ++i) x[i] = silu_(x[i]);
            return;
        case Activation::gelu_tanh:
#pragma omp simd
            for (int64_t i = 0; i < n; ++i) x[i] = gelu_tanh_(x[i]);
            return;
    }
}

// n elements from storage to compute type and back.
template <class T>
void to_compute(const T* from, compute_t<T>* to, int64_t n) {
    if constexpr (std::is_same_v<T, compute_t<T>>) {
        std::memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
    } else {
        for (int64_t i = 0; i < n; ++i) to[i] = static_cast<compute_t<T>>(from[i]);
    }
}
template <class T>
void from_compute(const compute_t<T>* from, T* to, int64_t n) {
    if constexpr (std::is_same_v<T, compute_t<T>>) {
        if (from != to) std::memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
    } else {
        for (int64_t i = 0; i < n; ++i) to[i] = T(from[i]);
    }
}

}  // namespace sana::cpu
