// depth_to_space: moves bytes. Where a position becomes 2 x 2 x 2 and channels come in eights, a thread reads the 64 values
// of eight channels, turns them in registers and writes eight vectors; bytes (x + shortcut + y). Elsewhere a thread makes one
// value: neighbours read the same lines, so that the caches collect them.
#include "ops/depth_to_space.h"

#include "ops/cuda/cuda.h"
#include "ops/cuda/device/element.cuh"

namespace sana::cuda {

namespace {

struct Sizes {
    uint32_t frames, height, width, channels;  // of x and, the last one, of y
    uint32_t stride[3], drop;
    uint32_t shortcut;  // its channels; 0: none
    bool rows_fastest;
};

template <class T>
__global__ void depth_to_space_kernel(const T* x, const T* shortcut, T* y, Sizes s, int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    uint32_t R = s.stride[0], P = s.stride[1], Q = s.stride[2], K = s.channels * R * P * Q;
    uint32_t T_out = s.frames * R - s.drop, H = s.height * P, W = s.width * Q;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        int64_t pixel = i / s.channels;
        uint32_t c = static_cast<uint32_t>(i - pixel * s.channels);
        int64_t line = pixel / W;
        uint32_t w = static_cast<uint32_t>(pixel - line * W), h = static_cast<uint32_t>(line % H);
        uint32_t frame = static_cast<uint32_t>(line / H), t = frame % T_out + s.drop, b = frame / T_out;
        uint32_t r = t % R, p = h % P, q = w % Q;
        uint32_t k = c * R * P * Q + (s.rows_fastest ? (r * Q + q) * P + p : (r * P + p) * Q + q);
        int64_t position = (static_cast<int64_t>(b * s.frames + t / R) * s.height + h / P) * s.width + w / Q;
        float value = to_float(x[position * K + k]);
        if (s.shortcut > 0) value += to_float(shortcut[position * s.shortcut + k % s.shortcut]);
        y[i] = from_float<T>(value);
    }
}

// stride 2, 2, 2; channels in eights, those of the shortcut in 64s; 16-bit elements.
template <class T>
__global__ void octants_kernel(const T* x, const T* shortcut, T* y, Sizes s, int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    uint32_t eights = s.channels / 8, frames = s.frames * 2 - s.drop;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        int64_t position = i / eights;
        uint32_t eight = static_cast<uint32_t>(i - position * eights);
        int64_t line = position / s.width;
        uint32_t w = static_cast<uint32_t>(position - line * s.width);
        uint32_t h = static_cast<uint32_t>(line % s.height), frame = static_cast<uint32_t>(line / s.height);
        uint32_t t = frame % s.frames, b = frame / s.frames;
        float v[8][8];  // [channel][offset]
#pragma unroll
        for (int c = 0; c < 8; ++c) load<8>(x + position * (s.channels * 8) + eight * 64 + c * 8, v[c]);
        if (s.shortcut > 0) {
            const T* from = shortcut + position * s.shortcut + eight * 64 % s.shortcut;
#pragma unroll
            for (int c = 0; c < 8; ++c) {
                float other[8];
                load<8>(from + c * 8, other);
#pragma unroll
                for (int o = 0; o < 8; ++o) v[c][o] += other[o];
            }
        }
#pragma unroll
        for (int o = 0; o < 8; ++o) {
            int to = static_cast<int>(t * 2 + o / 4) - static_cast<int>(s.drop);
            if (to < 0) continue;
            float out[8];
#pragma unroll
            for (int c = 0; c < 8; ++c) out[c] = v[c][o];
            int64_t row = (static_cast<int64_t>(b) * frames + to) * (s.height * 2) + h * 2 + o / 2 % 2;
            store<8>(y + ((row * (s.width * 2) + w * 2 + o % 2) * eights + eight) * 8, out);
        }
    }
}

}  // namespace

void depth_to_space(const DepthToSpaceArgs& args) {
    const DepthToSpaceOptions& o = args.options;
    if (args.y.numel() == 0) return;
    Sizes s{.frames = static_cast<uint32_t>(args.x.dim(1)),
            .height = static_cast<uint32_t>(args.x.dim(2)),
            .width = static_cast<uint32_t>(args.x.dim(3)),
            .channels = static_cast<uint32_t>(args.y.cols()),
            .stride = {},
            .drop = static_cast<uint32_t>(o.drop),
            .shortcut = args.shortcut.defined() ? static_cast<uint32_t>(args.shortcut.cols()) : 0,
            .rows_fastest = o.rows_fastest};
    for (size_t i = 0; i < 3; ++i) s.stride[i] = static_cast<uint32_t>(o.stride[i]);
    bool octants = o.stride == std::array<int64_t, 3>{2, 2, 2} && !o.rows_fastest && s.channels % 8 == 0 &&
                   s.shortcut % 64 == 0 && size_of(args.x.dtype()) == 2 && vectors_fit(args.x) &&
                   vectors_fit(args.y) && (!args.shortcut.defined() || vectors_fit(args.shortcut));
    int64_t count = octants ? args.x.rows() * (s.channels / 8) : args.y.numel();
    dispatch_cuda("depth_to_space", args.x.dtype(), [&]<class T>() {
        const T* shortcut = s.shortcut > 0 ? pointer<T>(args.shortcut) : nullptr;
        const T* x = pointer<T>(args.x);
        if constexpr (sizeof(T) == 2) {
            if (octants) {
                octants_kernel<T><<<grid_for(count, 128), 128, 0, stream_of(args.x.device())>>>(
                    x, shortcut, pointer<T>(args.y), s, count);
                return;
            }
        }
        depth_to_space_kernel<T><<<grid_for(count, 256), 256, 0, stream_of(args.x.device())>>>(
            x, shortcut, pointer<T>(args.y), s, count);
    });
    check_launch("depth_to_space", args.x.device());
}

}  // namespace sana::cuda
