// conv3d. On Hopper, with stride 1: tiles of the input with their halo stay in shared memory for all taps (conv_halo.h), or,
// where sizes do not suit that, the window slides in the copy engine; both read zeros outside, and other padding is written
// out first. Elsewhere rows of patches are written out, a chunk of output positions at a time, and multiplied with
// the weight as a matrix [O, KT*KH*KW*C]: every padding mode, stride and past is only a matter of where a patch's elements
// come from.
#include "ops/conv.h"

#include <map>
#include <mutex>

#include "ops/cuda/conv_halo.h"
#include "ops/cuda/cuda.h"
#include "ops/cuda/device/element.cuh"
#include "ops/cuda/gemm.h"
#include "ops/cuda/hopper.h"
#include "ops/cuda/implicit_gemm.h"
#include "ops/cuda/patches.h"

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

bool patch_vectors_fit(const Conv3dArgs& args) {
    return vectors_fit(args.x) && (!args.options.past.defined() || vectors_fit(args.options.past));
}

void write_patches(const Conv3dArgs& args, const Geometry& g, Tensor& patches, int64_t first_row,
                   int64_t rows) {
    if (patch_vectors_fit(args)) return write_patches<uint4>(args, g, patches, first_row, rows);
    if (size_of(args.x.dtype()) == 4) return write_patches<uint32_t>(args, g, patches, first_row, rows);
    write_patches<uint16_t>(args, g, patches, first_row, rows);
}

Geometry geometry_of(const Conv3dArgs& args) {
    const Conv3dOptions& o = args.options;
    return {args.x.dim(1),
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
}

// past ++ x with all padding written out: the patches of a kernel of one element.
Tensor padded_input(const Conv3dArgs& args) {
    Geometry g = geometry_of(args);
    Tensor out =
        empty({args.x.dim(0), args.y.dim(1) + args.weight.dim(1) - 1, args.y.dim(2) + args.weight.dim(2) - 1,
               args.y.dim(3) + args.weight.dim(3) - 1, args.x.dim(4)},
              args.x.dtype(), args.x.device());
    g.out_frames = out.dim(1);
    g.out_height = out.dim(2);
    g.out_width = out.dim(3);
    g.kernel[0] = g.kernel[1] = g.kernel[2] = 1;
    write_patches(args, g, out, 0, out.rows());
    return out;
}

template <class T>
__global__ void pad_channels_kernel(const T* x, T* y, int64_t stride, int64_t channels, int64_t units,
                                    int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        int64_t row = i / units, first = (i - row * units) * 8;
#pragma unroll
        for (int v = 0; v < 8; ++v) {
            bool there = first + v < channels;
            y[i * 8 + v] = there ? x[row * stride + first + v] : from_float<T>(0);
        }
    }
}

bool unit_stride(const Conv3dArgs& args) { return args.options.stride == std::array<int64_t, 3>{1, 1, 1}; }

std::array<int64_t, 4> grid_of(const Tensor& x) { return {x.dim(3), x.dim(2), x.dim(1), x.dim(0)}; }

// The taps that meet the same pixel of an x of which every pixel is doubled, summed: what a kernel of 3 x 3 is on the four
// pixels that one becomes. weight [O,KT,3,3,C] -> [4,O,KT,2,2,C]; the upper left pixel is first, then the one to its right.
template <class T>
__global__ void fold_kernel(const T* weight, T* folded, int64_t channels, int64_t rows, int64_t count) {
    int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
    if (i >= count) return;
    int64_t c = i % channels, tap = i / channels % 4, row = i / channels / 4 % rows,
            phase = i / channels / 4 / rows;
    // Of the upper pixel the taps are {0}, {1, 2}, of the lower one {0, 1}, {2}; columns likewise.
    auto first = [](int64_t phase, int64_t tap) { return tap == 0 ? 0 : 1 + phase; };
    auto last = [](int64_t phase, int64_t tap) { return tap == 1 ? 2 : phase; };
    float sum = 0;
    for (int64_t h = first(phase / 2, tap / 2); h <= last(phase / 2, tap / 2); ++h) {
        for (int64_t w = first(phase % 2, tap % 2); w <= last(phase % 2, tap % 2); ++w)
            sum += to_float(weight[(row * 9 + h * 3 + w) * channels + c]);
    }
    folded[i] = from_float<T>(sum);
}

// Made once a weight; weights are constant at inference.
struct FoldedWeights {
    std::map<int64_t, Tensor> by_offset;
};

Tensor folded_weight(const Tensor& w) {
    static std::mutex mutex;
    std::lock_guard lock(mutex);
    std::shared_ptr<void>& derived = w.storage()->derived;
    if (derived == nullptr) derived = std::make_shared<FoldedWeights>();
    Tensor& folded = static_cast<FoldedWeights*>(derived.get())->by_offset[w.byte_offset()];
    if (folded.defined()) return folded;
    folded = empty({4, w.dim(0), w.dim(1), 2, 2 * w.dim(4)}, w.dtype(), w.device());
    fold_kernel<<<static_cast<unsigned>((folded.numel() + 255) / 256), 256, 0, stream_of(w.device())>>>(
        pointer<bf16_t>(w), pointer<bf16_t>(folded), w.dim(4), w.dim(0) * w.dim(1), folded.numel());
    check_launch("fold_kernel", w.device());
    return folded;
}

bool by_halo(const Conv3dArgs& args) {
    const Conv3dOptions& o = args.options;
    if (args.x.dtype() != DType::BF16 || !unit_stride(args) || !is_hopper(args.x.device())) return false;
    bool one_around = true;
    for (size_t i = 1; i < 3; ++i) one_around = one_around && o.pad_before[i] == 1 && o.pad_after[i] == 1;
    bool reflect = o.space_mode == PadMode::reflect;
    if ((reflect || o.upsample) && (!one_around || args.weight.dim(2) != 3 || args.weight.dim(3) != 3))
        return false;
    if (reflect && o.upsample) return false;
    Tensor w = o.upsample ? folded_weight(args.weight) : args.weight;
    HaloConv p{.device = args.x.device(), .channels = args.x.dim(4), .width = args.y.cols()};
    p.x = args.x.raw();
    p.x_size = grid_of(args.x);
    p.past = o.past.raw();
    p.past_size = o.past.defined() ? o.past.dim(1) : 0;
    p.w = w.raw();
    p.taps = {args.weight.dim(3), args.weight.dim(2), args.weight.dim(1)};
    p.before = {o.pad_before[2], o.pad_before[1], o.pad_before[0]};
    p.reflect = reflect;
    p.repeat_frames = o.time_mode == PadMode::replicate;
    p.y = args.y.raw();
    p.y_size = grid_of(args.y);
    if (o.upsample) {
        p.scale = 2;
        p.taps[0] = p.taps[1] = 2;
        p.y_size[0] /= 2;
        p.y_size[1] /= 2;
    }
    p.bias = args.bias.raw();
    p.residual = o.residual.raw();
    return conv_halo(p);
}

bool by_window(const Conv3dArgs& args) {
    const Conv3dOptions& o = args.options;
    if (args.x.dtype() != DType::BF16 || args.x.dim(4) % 8 != 0 || !unit_stride(args)) return false;
    bool zeros = o.space_mode == PadMode::zeros &&
                 (o.time_mode == PadMode::zeros || o.pad_before[0] + o.pad_after[0] == 0);
    Tensor x = zeros ? args.x : padded_input(args);
    ImplicitGemm p{.dtype = x.dtype(), .device = x.device(), .channels = x.dim(4), .width = args.y.cols()};
    p.x = x.raw();
    p.x_size = grid_of(x);
    p.x_stride[0] = x.dim(4);
    for (size_t i = 1; i < 4; ++i) p.x_stride[i] = p.x_stride[i - 1] * p.x_size[i - 1];
    if (zeros) {
        p.past = o.past.raw();
        p.past_size = o.past.defined() ? o.past.dim(1) : 0;
        p.before = {o.pad_before[2], o.pad_before[1], o.pad_before[0]};
    }
    p.w = args.weight.raw();
    p.taps = {args.weight.dim(3), args.weight.dim(2), args.weight.dim(1)};
    p.y = args.y.raw();
    p.y_size = grid_of(args.y);
    p.y_stride = args.y.cols();
    p.bias = args.bias.raw();
    p.residual = o.residual.raw();
    p.residual_stride = args.y.cols();
    p.tokens = std::max<int64_t>(1, args.y.rows());
    return implicit_gemm(p);
}

}  // namespace

void write_patches(const Conv3dArgs& args, Tensor& patches, int64_t first_row, int64_t rows) {
    write_patches(args, geometry_of(args), patches, first_row, rows);
}

Tensor pad_channels(const Tensor& x, int64_t unit) {
    int64_t channels = x.cols(), units = (channels + unit - 1) / unit * (unit / 8);
    if (channels % unit == 0) return x;
    Shape shape = x.shape();
    shape[-1] = units * 8;
    Tensor y = empty(shape, x.dtype(), x.device());
    int64_t count = x.rows() * units;
    if (count == 0) return y;
    dispatch_cuda("conv3d", x.dtype(), [&]<class T>() {
        pad_channels_kernel<T><<<grid_for(count, 256), 256, 0, stream_of(x.device())>>>(
            pointer<T>(x), pointer<T>(y), x.row_stride(), channels, units, count);
    });
    check_launch("conv3d", x.device());
    return y;
}

void conv3d(const Conv3dArgs& args) {
    const Conv3dOptions& o = args.options;
    // The three colours, and results of which a gradient comes back: zeros are cheaper than patches. 32 channels are what
    // a box with its halo takes; a window over 8 costs five times as much.
    bool pictures = args.x.dtype() == DType::BF16 && args.x.dim(4) % 8 != 0 && unit_stride(args) &&
                    is_hopper(args.x.device());
    if (pictures) {
        Tensor x = pad_channels(args.x, 32), weight = pad_channels(args.weight, 32);
        Conv3dOptions padded = o;
        if (o.past.defined()) padded.past = pad_channels(o.past, 32);
        return conv3d({x, weight, args.bias, padded, args.y});
    }
    int64_t rows = args.y.rows(), width = args.y.cols(), element = size_of(args.x.dtype());
    if (args.y.numel() == 0 || by_halo(args)) return;
    if (o.upsample) {
        auto doubled = [](const Tensor& x) { return x.defined() ? sana::upsample_nearest(x) : x; };
        Conv3dOptions plain = o;
        plain.upsample = false;
        plain.past = doubled(o.past);
        return conv3d({doubled(args.x), args.weight, args.bias, plain, args.y});
    }
    if (by_window(args)) return;
    Geometry g = geometry_of(args);
    int64_t depth = g.kernel[0] * g.kernel[1] * g.kernel[2] * g.channels;
    int64_t chunk = std::clamp<int64_t>(kChunkBytes / (depth * element), 1, rows);
    Tensor patches = empty({chunk, depth}, args.x.dtype(), args.x.device());
    for (int64_t first = 0; first < rows; first += chunk) {
        int64_t count = std::min(chunk, rows - first);
        write_patches(args, g, patches, first, count);
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
