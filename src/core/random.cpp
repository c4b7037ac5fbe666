#include "core/random.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>

#include "core/cuda/device.h"
#include "core/parallel.h"

namespace sana {

Tensor normal_philox(const Shape& shape, const NormalSource& source, Device device) {
    Tensor out = empty(shape, DType::F32, device);
    float* values = out.data<float>();
    int64_t n = out.numel();
    if (device.type == DeviceType::cuda) {
        cuda::fill_normal(device.index, values, n, source);
        return out;
    }
    parallel_for((n + 3) / 4, 200, [&](int64_t block) {
        std::array<float, 4> four = normal_block(source, static_cast<uint64_t>(block));
        for (int64_t i = 4 * block; i < std::min(4 * block + 4, n); ++i)
            values[i] = four[static_cast<size_t>(i % 4)];
    });
    return out;
}

Tensor randn_philox(const Shape& shape, uint64_t seed, uint64_t stream, Device device) {
    return normal_philox(shape, {.seed = seed, .stream = stream}, device);
}

namespace {

// torch's CPU generator: MT19937 seeded with the low 32 bits; a float uniform uses 24 bits, a double one 53.
class TorchGenerator {
public:
    explicit TorchGenerator(uint64_t seed) : engine_(static_cast<uint32_t>(seed)) {}

    float uniform_float() { return static_cast<float>(engine_() & ((1u << 24) - 1)) * 0x1p-24f; }

    double uniform_double() {
        uint64_t high = engine_(), low = engine_();
        return static_cast<double>(((high << 32) | low) & ((uint64_t{1} << 53) - 1)) * 0x1p-53;
    }

    // The scalar path keeps the second value of a pair for the next call.
    double normal() {
        if (has_next_) {
            has_next_ = false;
            return next_;
        }
        double u1 = uniform_double(), u2 = uniform_double();
        double radius = std::sqrt(-2 * std::log1p(-u2)), angle = 2 * std::numbers::pi * u1;
        next_ = radius * std::sin(angle);
        has_next_ = true;
        return radius * std::cos(angle);
    }

private:
    std::mt19937 engine_;
    double next_ = 0;
    bool has_next_ = false;
};

void box_muller_16(float* block) {
    for (int j = 0; j < 8; ++j) {
        float u1 = 1 - block[j], u2 = block[j + 8];
        float radius = std::sqrt(-2 * std::log(u1)), angle = 2 * std::numbers::pi_v<float> * u2;
        block[j] = radius * std::cos(angle);
        block[j + 8] = radius * std::sin(angle);
    }
}

}  // namespace

Tensor randn_torch(const Shape& shape, uint64_t seed) {
    Tensor out = empty(shape, DType::F32);
    float* values = out.data<float>();
    int64_t n = out.numel();
    TorchGenerator generator(seed);
    if (n < 16) {
        for (int64_t i = 0; i < n; ++i) values[i] = static_cast<float>(generator.normal());
        return out;
    }
    for (int64_t i = 0; i < n; ++i) values[i] = generator.uniform_float();
    for (int64_t i = 0; i + 16 <= n; i += 16) box_muller_16(values + i);
    if (n % 16 != 0) {
        float* last = values + n - 16;
        for (int i = 0; i < 16; ++i) last[i] = generator.uniform_float();
        box_muller_16(last);
    }
    return out;
}

}  // namespace sana
