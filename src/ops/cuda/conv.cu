// conv3d: rows of patches are written out, a chunk of output positions at a time, and multiplied with the weight as a
// matrix [O, KT*KH*KW*C]. Every padding mode, stride and past is only a matter of where a patch's elements come from.
#include "ops/conv.h"

#include "ops/cuda/cuda.h"
#include "ops/cuda/device/element.cuh"
#include "ops/cuda/gemm.h"

namespace sana::cuda {

namespace {

constexpr int64_t kChunkBytes = int64_t{512} << 20;  // of patches

struct Geometry {
    int64_t frames, height, width, channels, past;  // input; frames without those of the past
    int64_t out_frames, out_height, out_width;
    int64_t kernel[3], stride[3], before[3];
    PadMode time_mode, space_mode;
};

// Index into an axis of `size` for a position that padding moved outside; -1 stands for zero.
__device__ int64_t source_index(int64_t position, int64_t size, PadMode mode) {
    if (position >= 0 && position < size) return position;
    if (mode == PadMode::replicate) return position < 0 ? 0 : size - 1;
    if (mode == PadMode::reflect) return position < 0 ? -position : 2 * (size - 1) - position;
    return -1;
}

// Units of E: one element, or 16 bytes of channels. A thread copies one unit; channels are fastest on both sides.
template <class E>
__global__ void patches_kernel(const E* x, const E* past, E* patches, Geometry g, int64_t first_row,
                               int64_t units, int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    int64_t taps = g.kernel[0] * g.kernel[1] * g.kernel[2];
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        int64_t unit = i % units, tap = i / units % taps, row = i / units / taps + first_row;
        int64_t dw = tap % g.kernel[2], dh = tap / g.kernel[2] % g.kernel[1],
                dt = tap / g.kernel[2] / g.kernel[1];
        int64_t w = row % g.out_width, h = row / g.out_width % g.out_height;
        int64_t t = row / g.out_width / g.out_height % g.out_frames;
        int64_t b = row / g.out_width / g.out_height / g.out_frames;
        t = source_index(t * g.stride[0] + dt - g.before[0], g.frames + g.past, g.time_mode);
        h = source_index(h * g.stride[1] + dh - g.before[1], g.height, g.space_mode);
        w = source_index(w * g.stride[2] + dw - g.before[2], g.width, g.space_mode);
        E value{};
        if (t >= 0 && h >= 0 && w >= 0) {
            bool old = t < g.past;
            int64_t frame = old ? b * g.past + t : b * g.frames + t - g.past;
            value = (old ? past : x)[((frame * g.height + h) * g.width + w) * units + unit];
        }
        patches[i] = value;
    }
}

template <class E>
void write_patches(const Conv3dArgs& args, const Geometry& g, Tensor& patches, int64_t first_row,
                   int64_t rows) {
    int64_t units = g.channels * size_of(args.x.dtype()) / static_cast<int64_t>(sizeof(E));
    int64_t count = rows * g.kernel[0] * g.kernel[1] * g.kernel[2] * units;
    const E* past = args.options.past.defined() ? pointer<E>(args.options.past) : nullptr;
    patches_kernel<E><<<grid_for(count, 256), 256, 0, stream_of(args.x.device())>>>(
        pointer<E>(args.x), past, pointer<E>(patches), g, first_row, units, count);
    check_launch("conv3d", args.x.device());
}

}  // namespace

void conv3d(const Conv3dArgs& args) {
    const Conv3dOptions& o = args.options;
    int64_t rows = args.y.rows(), width = args.y.cols(), element = size_of(args.x.dtype());
    if (args.y.numel() == 0) return;
    Geometry g{args.x.dim(1),
               args.x.dim(2),
               args.x.dim(3),
               args.x.dim(4),
               o.past.defined() ? o.past.dim(1) : 0,
               args.y.dim(1),
               args.y.dim(2),
               args.y.dim(3),
               {args.weight.dim(1), args.weight.dim(2), args.weight.dim(3)},
               {o.stride[0], o.stride[1], o.stride[2]},
               {o.pad_before[0], o.pad_before[1], o.pad_before[2]},
               o.time_mode,
               o.space_mode};
    int64_t depth = g.kernel[0] * g.kernel[1] * g.kernel[2] * g.channels;
    int64_t chunk = std::clamp<int64_t>(kChunkBytes / (depth * element), 1, rows);
    Tensor patches = empty({chunk, depth}, args.x.dtype(), args.x.device());
    bool vectors = vectors_fit(args.x) && (!o.past.defined() || vectors_fit(o.past));
    for (int64_t first = 0; first < rows; first += chunk) {
        int64_t count = std::min(chunk, rows - first);
        if (vectors) {
            write_patches<uint4>(args, g, patches, first, count);
        } else if (element == 4) {
            write_patches<uint32_t>(args, g, patches, first, count);
        } else {
            write_patches<uint16_t>(args, g, patches, first, count);
        }
        auto row = [&](const Tensor& x) {
            return Matrix{static_cast<std::byte*>(x.raw()) + first * width * element, width};
        };
        product({.dtype = args.x.dtype(),
                 .y_dtype = args.x.dtype(),
                 .M = count,
                 .N = width,
                 .K = depth,
                 .x = matrix(patches),
                 .w = {args.weight.raw(), depth},
                 .y = row(args.y),
                 .c = o.residual.defined() ? row(o.residual) : Matrix{},
                 .bias = args.bias.defined() ? args.bias.raw() : nullptr,
                 .device = args.x.device()});
    }
}

}  // namespace sana::cuda
