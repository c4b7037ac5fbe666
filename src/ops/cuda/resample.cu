// upsample_nearest: a thread reads one vector of a pixel and writes it four times.
#include "ops/conv.h"

#include "ops/cuda/cuda.h"
#include "ops/cuda/device/element.cuh"

namespace sana::cuda {

namespace {

// width, units: of the input; a unit is what one thread moves.
template <class E>
__global__ void upsample_nearest_kernel(const E* x, E* y, int64_t width, int64_t units, int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        int64_t unit = i % units, pixel = i / units, w = pixel % width, row = pixel / width;
        E value = x[i];
        E* out = y + ((row * 2) * width * 2 + w * 2) * units + unit;
        out[0] = value;
        out[units] = value;
        out[width * 2 * units] = value;
        out[(width * 2 + 1) * units] = value;
    }
}

template <class E>
void run(const UpsampleNearestArgs& args) {
    int64_t units = args.x.dim(4) * size_of(args.x.dtype()) / static_cast<int64_t>(sizeof(E));
    int64_t count = args.x.rows() * units;
    upsample_nearest_kernel<E><<<grid_for(count, 256), 256, 0, stream_of(args.x.device())>>>(
        pointer<E>(args.x), pointer<E>(args.y), args.x.dim(3), units, count);
    check_launch("upsample_nearest", args.x.device());
}

}  // namespace

void upsample_nearest(const UpsampleNearestArgs& args) {
    if (args.x.numel() == 0) return;
    if (vectors_fit(args.x) && vectors_fit(args.y)) return run<uint4>(args);
    return size_of(args.x.dtype()) == 4 ? run<uint32_t>(args) : run<uint16_t>(args);
}

}  // namespace sana::cuda
