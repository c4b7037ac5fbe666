// rotate_half: a thread takes a pair (d, d + D/2) of one head; 2 reads and 2 writes an element pair, tables stay in L2.
#include "ops/rope.h"

#include "ops/cuda/cuda.h"
#include "ops/cuda/device/element.cuh"

namespace sana::cuda {

namespace {

template <class T>
__global__ void rotate_half_kernel(const T* x, int64_t stride, const float* cosines, const float* sines, T* y,
                                   int64_t heads, int64_t tokens, int64_t pairs, int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, per_row = heads * pairs;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        int64_t row = i / per_row, in_row = i - row * per_row, head = in_row / pairs,
                j = in_row - head * pairs;
        int64_t col = head * 2 * pairs + j;
        float c = cosines[row % tokens * pairs + j], s = sines[row % tokens * pairs + j];
        float x1 = to_float(x[row * stride + col]), x2 = to_float(x[row * stride + col + pairs]);
        T* out = y + row * per_row * 2 + col;
        out[0] = from_float<T>(x1 * c - x2 * s);
        out[pairs] = from_float<T>(x2 * c + x1 * s);
    }
}

}  // namespace

void rotate_half(const RotateHalfArgs& args) {
    int64_t pairs = args.rope.cos.dim(1), count = args.x.numel() / 2;
    if (count == 0) return;
    dispatch_cuda("rotate_half", args.x.dtype(), [&]<class T>() {
        rotate_half_kernel<T><<<grid_for(count, 256), 256, 0, stream_of(args.x.device())>>>(
            pointer<T>(args.x), args.x.row_stride(), pointer<float>(args.rope.cos),
            pointer<float>(args.rope.sin), pointer<T>(args.y), args.heads, args.x.dim(1), pairs, count);
    });
    check_launch("rotate_half", args.x.device());
}

}  // namespace sana::cuda
