// The derivatives of conv3d: of its weight, as a product over rows of patches, a chunk at a time, summed in fp32; and the
// way back from a padded input.
#include "ops/cuda/device/derivative.cuh"
#include "ops/cuda/gemm.h"
#include "ops/cuda/gradients.h"
#include "ops/cuda/patches.h"

namespace sana::cuda {

namespace {

constexpr int64_t kChunkBytes = int64_t{512} << 20;  // of patches

struct Axis {
    int64_t size, padded, before;
    PadMode mode;

    __device__ int64_t source(int64_t position) const {
        position -= before;
        if (position >= 0 && position < size) return position;
        if (mode == PadMode::replicate) return position < 0 ? 0 : size - 1;
        if (mode == PadMode::reflect) return position < 0 ? -position : 2 * (size - 1) - position;
        return -1;
    }
    // Padded positions that index may have been copied to lie in [low, high) or at its own place.
    __device__ bool near_edge(int64_t index) const {
        return mode == PadMode::reflect || (mode == PadMode::replicate && (index == 0 || index == size - 1));
    }
    template <class F>
    __device__ void for_places(int64_t index, F f) const {
        if (!near_edge(index)) return f(index + before);
        for (int64_t p = 0; p < padded; ++p) {
            if (source(p) == index) f(p);
        }
    }
};

template <class T>
__global__ void unpad_kernel(const T* padded, T* dpast, T* dx, Axis time, Axis rows, Axis columns,
                             int64_t past, int64_t channels, int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        int64_t c = i % channels, w = i / channels % columns.size,
                h = i / channels / columns.size % rows.size;
        int64_t frame = i / channels / columns.size / rows.size, t = frame % time.size, b = frame / time.size;
        float sum = 0;
        time.for_places(t, [&](int64_t pt) {
            rows.for_places(h, [&](int64_t ph) {
                columns.for_places(w, [&](int64_t pw) {
                    sum +=
                        to_float(padded[(((b * time.padded + pt) * rows.padded + ph) * columns.padded + pw) *
                                            channels +
                                        c]);
                });
            });
        });
        int64_t frames = t < past ? past : time.size - past, place = t < past ? t : t - past;
        T* to = t < past ? dpast : dx;
        to[(((b * frames + place) * rows.size + h) * columns.size + w) * channels + c] = from_float<T>(sum);
    }
}

}  // namespace

void conv3d_weight_grad(const Conv3dWeightGradArgs& args) {
    int64_t rows = args.dy.rows(), width = args.dy.cols(),
            depth = args.dweight.numel() / std::max<int64_t>(1, width);
    int64_t element = size_of(args.x.dtype());
    if (args.dweight.numel() == 0 || conv3d_weight_by_mma(args)) return;
    // Channels that do not fill vectors: with zeros as further ones, of which the gradient is left out.
    int64_t out = args.dweight.dim(0), in = args.dweight.dim(4);
    if (element == 2 && (out % 8 != 0 || in % 8 != 0)) {
        Tensor x = pad_channels(args.x, 8), dy = pad_channels(args.dy, 8);
        Conv3dOptions padded = args.options;
        if (padded.past.defined()) padded.past = pad_channels(padded.past, 8);
        Shape shape = args.dweight.shape();
        shape[0] = dy.cols();
        shape[4] = x.cols();
        Tensor wide = empty(shape, x.dtype(), x.device());
        if (conv3d_weight_by_mma({x, dy, padded, wide})) {
            copy(wide.outer_slice(0, out).cols_slice(0, in), args.dweight);
            return;
        }
    }
    Tensor sums = zeros({width, depth}, DType::F32, args.x.device());
    int64_t chunk = std::clamp<int64_t>(kChunkBytes / (depth * element), 1, std::max<int64_t>(1, rows));
    Tensor patches = empty({chunk, depth}, args.x.dtype(), args.x.device()), none, y = args.dy;
    Conv3dArgs forward{args.x, args.dweight, none, args.options, y};
    for (int64_t first = 0; first < rows; first += chunk) {
        int64_t count = std::min(chunk, rows - first);
        write_patches(forward, patches, first, count);
        product({.dtype = args.x.dtype(),
                 .y_dtype = DType::F32,
                 .M = width,
                 .N = depth,
                 .K = count,
                 .x = {static_cast<std::byte*>(args.dy.raw()) + first * width * element, width},
                 .w = matrix(patches),
                 .y = matrix(sums),
                 .c = matrix(sums),
                 .device = args.x.device(),
                 .x_transposed = true,
                 .w_transposed = true});
    }
    copy(sums.reshape(args.dweight.shape()), args.dweight);
}

void unpad(const UnpadArgs& args) {
    const Conv3dOptions& o = args.options;
    int64_t past = args.dpast.defined() ? args.dpast.dim(1) : 0;
    auto axis = [&](int i, int64_t size) {
        return Axis{size, args.dpadded.dim(i + 1), o.pad_before[static_cast<size_t>(i)],
                    i == 0 ? o.time_mode : o.space_mode};
    };
    Axis time = axis(0, args.dx.dim(1) + past), rows = axis(1, args.dx.dim(2)),
         columns = axis(2, args.dx.dim(3));
    int64_t channels = args.dx.dim(4),
            count = args.dx.dim(0) * time.size * rows.size * columns.size * channels;
    if (count == 0) return;
    dispatch_cuda("conv3d", args.dx.dtype(), [&]<class T>() {
        unpad_kernel<T><<<grid_for(count, 256), 256, 0, stream_of(args.dx.device())>>>(
            pointer<T>(args.dpadded), args.dpast.defined() ? pointer<T>(args.dpast) : nullptr,
            pointer<T>(args.dx), time, rows, columns, past, channels, count);
    });
    check_launch("conv3d", args.dx.device());
}

}  // namespace sana::cuda
