// SHA-256 (FIPS 180-4): names of model files in recipes, known texts.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sana {

class Sha256 {
public:
    void update(const void* data, size_t bytes);
    std::string hex();  // ends the computation

private:
    void block(const uint8_t* p);

    std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<uint8_t, 64> buffer_{};
    size_t filled_ = 0;
    uint64_t total_ = 0;
};

std::string sha256_hex(std::string_view text);

}  // namespace sana
