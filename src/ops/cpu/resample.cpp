#include <cstring>

#include "core/parallel.h"
#include "ops/cpu/cpu.h"

namespace sana::cpu {

void upsample_nearest(const UpsampleNearestArgs& args) {
    int64_t frames = args.x.dim(0) * args.x.dim(1), height = args.x.dim(2), width = args.x.dim(3);
    int64_t pixel = args.x.dim(4) * size_of(args.x.dtype()), row = 2 * width * pixel;
    const std::byte* x = static_cast<const std::byte*>(args.x.raw());
    std::byte* y = static_cast<std::byte*>(args.y.raw());
    parallel_for(frames * height, row, [&](int64_t r) {
        std::byte* out = y + 2 * r * row;
        for (int64_t w = 0; w < width; ++w) {
            const std::byte* in = x + (r * width + w) * pixel;
            std::memcpy(out + 2 * w * pixel, in, static_cast<size_t>(pixel));
            std::memcpy(out + (2 * w + 1) * pixel, in, static_cast<size_t>(pixel));
        }
        std::memcpy(out + row, out, static_cast<size_t>(row));
    });
}

}  // namespace sana::cpu
