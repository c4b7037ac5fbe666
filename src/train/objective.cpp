#include "train/objective.h"

#include "core/copy_queue.h"
#include "core/random.h"
#include "ops/loss.h"

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

Tensor Staging::take(const Shape& shape, DType dtype, Device device) {
    int64_t bytes = shape.numel() * size_of(dtype);
    for (const StoragePtr& place : places_) {
        if (place.use_count() == 1 && place->bytes() >= bytes) return Tensor(place, 0, dtype, shape);
    }
    places_.push_back(allocate_pinned(bytes, device));
    return Tensor(places_.back(), 0, dtype, shape);
}

std::map<std::string, double> Objective::judge(const std::vector<Tensor>& inputs) {
    return {{"held_out", item(losses_of(inputs).total)}};
}

Losses Objective::losses(const Batch& batch, const Draws& draws) {
    return losses_of(inputs(batch, prepare(batch, draws), draws));
}

}  // namespace sana
