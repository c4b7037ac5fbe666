// Philox and the normal deviates made of it, for host and device alike: nothing but IEEE additions, products, fused
// multiply-adds, divisions and roots, so that every machine gives the same bits.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace sana {

// Philox 4x32-10 (Salmon et al. 2011): four 32-bit numbers of a counter and a key.
constexpr std::array<uint32_t, 4> philox(std::array<uint32_t, 4> c, std::array<uint32_t, 2> key) {
    for (int round = 0; round < 10; ++round) {
        uint64_t a = uint64_t{0xD2511F53u} * c[0], b = uint64_t{0xCD9E8D57u} * c[2];
        c = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ key[0], static_cast<uint32_t>(b),
             static_cast<uint32_t>(a >> 32) ^ c[3] ^ key[1], static_cast<uint32_t>(a)};
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    return c;
}

namespace detail {

// c[0] + c[1] x + ... ; a call of fma a coefficient, so that no compiler chooses where to round.
template <size_t n>
constexpr double polynomial(double x, const double (&c)[n]) {
    double sum = c[n - 1];
    for (size_t i = n - 1; i-- > 0;) sum = std::fma(sum, x, c[i]);
    return sum;
}

// ln v for a normal v: v = m 2^e with m near 1, ln m = 2 artanh((m - 1) / (m + 1)). Good to 2 units in the last place.
constexpr double natural_log(double v) {
    // 1 / (2k + 1); the next term is below 2^-60 of the sum for m in [sqrt(1/2), sqrt(2)].
    constexpr double kSeries[] = {1.0,      1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9,  1.0 / 11,
                                  1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21, 1.0 / 23};
    constexpr double kLn2 = 0x1.62e42fefa39efp-1, kLn2Rest = 0x1.abc9e3b39803fp-56;
    uint64_t bits = __builtin_bit_cast(uint64_t, v);
    int exponent = static_cast<int>(bits >> 52) - 1022;
    double m = __builtin_bit_cast(double, (bits & 0x000fffffffffffffu) | 0x3fe0000000000000u);  // [1/2, 1)
    if (m < 0.70710678118654752) {
        m += m;
        exponent -= 1;
    }
    double s = (m - 1) / (m + 1), e = exponent;
    return std::fma(e, kLn2, std::fma(2 * s, polynomial(s * s, kSeries), e * kLn2Rest));
}

// cos and sin of 2 pi v for v in [0, 1], from v's distance to the nearest quarter, which is exact.
struct CosSin {
    double cos, sin;
};
constexpr CosSin cos_sin_turn(double v) {
    constexpr double kCos[] = {1.0,
                               -1.0 / 2,
                               1.0 / 24,
                               -1.0 / 720,
                               1.0 / 40320,
                               -1.0 / 3628800,
                               1.0 / 479001600,
                               -1.0 / 87178291200,
                               1.0 / 20922789888000};
    constexpr double kSin[] = {1.0,
                               -1.0 / 6,
                               1.0 / 120,
                               -1.0 / 5040,
                               1.0 / 362880,
                               -1.0 / 39916800,
                               1.0 / 6227020800,
                               -1.0 / 1307674368000,
                               1.0 / 355687428096000};
    int quarter = static_cast<int>(std::fma(v, 4.0, 0.5));
    double a = 6.283185307179586 * std::fma(static_cast<double>(quarter), -0.25, v), square = a * a;
    double c = polynomial(square, kCos), s = a * polynomial(square, kSin);
    switch (quarter & 3) {
        case 0: return {c, s};
        case 1: return {-s, c};
        case 2: return {-c, -s};
        default: return {s, -c};
    }
}

}  // namespace detail

// Where a run of normal deviates comes from, and how they are scaled.
struct NormalSource {
    uint64_t seed = 0, stream = 0;
    double mean = 0, std = 1;
};

// Elements 4 * block .. 4 * block + 3 of a source (core/random.h says what they are).
constexpr std::array<float, 4> normal_block(const NormalSource& source, uint64_t block) {
    auto bits = philox({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                        static_cast<uint32_t>(source.stream), static_cast<uint32_t>(source.stream >> 32)},
                       {static_cast<uint32_t>(source.seed), static_cast<uint32_t>(source.seed >> 32)});
    std::array<float, 4> out{};
    for (size_t pair = 0; pair < 4; pair += 2) {
        double v0 = (bits[pair] + 0.5) * 0x1p-32, v1 = (bits[pair + 1] + 0.5) * 0x1p-32;
        double radius = std::sqrt(-2 * detail::natural_log(v0));
        auto [c, s] = detail::cos_sin_turn(v1);
        double values[2] = {radius * c, radius * s};
        for (size_t i = 0; i < 2; ++i) {
            double z = static_cast<float>(values[i]);
            out[pair + i] = static_cast<float>(std::fma(source.std, z, source.mean));
        }
    }
    return out;
}

}  // namespace sana
