#include "train/objective.h"

#include "core/random.h"

namespace sana {

Tensor Draws::normal(const Shape& shape, uint64_t purpose, Device device) const {
    return randn_philox(shape, seed, stream(purpose), device);
}

std::vector<double> Draws::uniform(size_t count, uint64_t purpose) const {
    std::vector<double> out(count);
    uint64_t s = stream(purpose);
    for (size_t i = 0; i < count; ++i) {
        auto bits =
            philox({static_cast<uint32_t>(i), 0, static_cast<uint32_t>(s), static_cast<uint32_t>(s >> 32)},
                   {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
        out[i] = (static_cast<double>(bits[0]) + 0.5) * 0x1p-32;
    }
    return out;
}

}  // namespace sana
