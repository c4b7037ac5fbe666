// Normal noise on the device, with the bits that the host gives.
#include <algorithm>

#include "core/cuda/device.h"
#include "core/cuda/stream.h"

namespace sana::cuda {

namespace {

__global__ void normal_kernel(float* to, int64_t n, NormalSource source) {
    int64_t blocks = (n + 3) / 4, step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t b = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; b < blocks; b += step) {
        std::array<float, 4> four = normal_block(source, static_cast<uint64_t>(b));
        for (int64_t i = 0; i < 4 && 4 * b + i < n; ++i) to[4 * b + i] = four[static_cast<size_t>(i)];
    }
}

}  // namespace

void fill_normal(int device, float* to, int64_t n, const NormalSource& source) {
    if (n == 0) return;
    Device where{DeviceType::cuda, device};
    unsigned blocks = static_cast<unsigned>(std::min<int64_t>((n + 1023) / 1024, 132 * 16));
    normal_kernel<<<blocks, 256, 0, stream_of(where)>>>(to, n, source);
    check_launch("normal_kernel", where);
}

}  // namespace sana::cuda
