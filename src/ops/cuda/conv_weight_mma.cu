// The derivative of a convolution's weight with tensor cores, for 16-bit types, stride 1 and zero padding:
//   dweight[o,(u,v,s),c] = sum over results (b,t,h,w) of dy[b,t,h,w,o] x[b, t + u - before, h + v - before, w + s - before, c]
// A block keeps a tile of outputs x inputs for one (u,v) and goes over its part of the lines (rows of pixels), 32 pixels at
// a time: dy and x come into shared memory once, x with its neighbours, and warp s multiplies them shifted by s pixels.
// Both operands have the sum along their rows, so that fragments are loaded transposed. Parts are added up in order.
#include "ops/cuda/device/derivative.cuh"
#include "ops/cuda/device/mma.cuh"
#include "ops/cuda/gradients.h"

namespace sana::cuda {

namespace {

constexpr int kPixels = 32, kStages = 4, kPad = 8;

struct Lines {
    int64_t count, per_part;          // B*T*H, and of each part
    int frames, height, width;        // of dy
    int x_frames, x_height, x_width;  // of x without the past
    int past;                         // frames of it
    int taps[3], before[3];
    int out, in, out_tiles, in_tiles;
};

// Lines and pixels of a part, without lines that see nothing but padding.
template <class T>
struct Walk {
    const Lines& g;
    const T *x, *past;
    int64_t line, last;
    int u, v, pixel = 0;
    const T* row = nullptr;  // of x

    __device__ bool find() {
        for (; line < last; ++line) {
            int h = static_cast<int>(line % g.height) + v - g.before[1];
            int t = static_cast<int>(line / g.height % g.frames) + u - g.before[0];
            int64_t b = line / g.height / g.frames;
            if (h < 0 || h >= g.x_height || t < 0 || t >= g.x_frames + g.past) continue;
            bool old = t < g.past;
            int64_t frame = old ? b * g.past + t : b * g.x_frames + t - g.past;
            row = (old ? past : x) + (frame * g.x_height + h) * g.x_width * g.in;
            return true;
        }
        return false;
    }
    __device__ void next() {
        pixel += kPixels;
        if (pixel >= g.width) {
            pixel = 0;
            ++line;
        }
    }
};

template <class T, int TM, int TN, int KW>
__global__ void __launch_bounds__(32 * KW)
    conv_weight_kernel(const T* x, const T* past, const T* dy, float* partial, Lines g) {
    constexpr int kRows = kPixels + KW - 1, kA = TM + kPad, kB = TN + kPad;
    __shared__ __align__(16) T a_tile[kStages][kPixels * kA];
    __shared__ __align__(16) T b_tile[kStages][kRows * kB];
    int tile = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x), warp = thread / 32,
        lane = thread % 32;
    int v = tile % g.taps[1], u = tile / g.taps[1] % g.taps[0];
    tile /= g.taps[1] * g.taps[0];
    int c0 = tile % g.in_tiles * TN, o0 = tile / g.in_tiles * TM;

    int64_t first = blockIdx.y * g.per_part;
    Walk<T> fetch{g, x, past, first, min(first + g.per_part, g.count), u, v};
    auto load_stage = [&](int stage) {
        const T* from = dy + fetch.line * g.width * g.out;
        for (int i = thread; i < kPixels * (TM / 8); i += 32 * KW) {
            int r = i / (TM / 8), c = i % (TM / 8) * 8, p = fetch.pixel + r;
            bool there = p < g.width && o0 + c < g.out;
            copy_async(static_cast<uint32_t>(__cvta_generic_to_shared(&a_tile[stage][r * kA + c])),
                       from + static_cast<int64_t>(p) * g.out + o0 + c, there);
        }
        for (int i = thread; i < kRows * (TN / 8); i += 32 * KW) {
            int r = i / (TN / 8), c = i % (TN / 8) * 8, p = fetch.pixel + r - g.before[2];
            bool there = p >= 0 && p < g.x_width && c0 + c < g.in;
            copy_async(static_cast<uint32_t>(__cvta_generic_to_shared(&b_tile[stage][r * kB + c])),
                       fetch.row + static_cast<int64_t>(p) * g.in + c0 + c, there);
        }
        fetch.next();
    };
    // Stages are counted by groups, empty ones at the end included.
    int loaded = 0;
    auto prefetch = [&] {
        if (fetch.find()) {
            load_stage(loaded % kStages);
            ++loaded;
        }
        copy_commit();
    };
    for (int s = 0; s < kStages - 1; ++s) prefetch();

    float sums[TM / 16][TN / 8][4] = {};
    int k_lane = lane % 8, matrix = lane / 8;
    for (int done = 0; done < loaded; ++done) {
        copy_wait_but<kStages - 2>();
        __syncthreads();
        prefetch();
        const T *a_stage = a_tile[done % kStages], *b_stage = b_tile[done % kStages];
#pragma unroll
        for (int k = 0; k < kPixels; k += 16) {
            uint32_t a[TM / 16][4];
#pragma unroll
            for (int m = 0; m < TM / 16; ++m) {
                int row = k + (matrix >= 2 ? 8 : 0) + k_lane, col = m * 16 + (matrix % 2) * 8;
                load_matrices_transposed(
                    a[m], static_cast<uint32_t>(__cvta_generic_to_shared(a_stage + row * kA + col)));
            }
#pragma unroll
            for (int n = 0; n < TN / 16; ++n) {
                uint32_t b[4];
                int row = k + warp + (matrix % 2) * 8 + k_lane, col = n * 16 + (matrix >= 2 ? 8 : 0);
                load_matrices_transposed(
                    b, static_cast<uint32_t>(__cvta_generic_to_shared(b_stage + row * kB + col)));
#pragma unroll
                for (int m = 0; m < TM / 16; ++m) {
                    mma<T>(sums[m][2 * n], a[m], b[0], b[1]);
                    mma<T>(sums[m][2 * n + 1], a[m], b[2], b[3]);
                }
            }
        }
    }

    int taps = g.taps[0] * g.taps[1] * g.taps[2], tap = (u * g.taps[1] + v) * g.taps[2] + warp;
#pragma unroll
    for (int m = 0; m < TM / 16; ++m) {
#pragma unroll
        for (int n = 0; n < TN / 8; ++n) {
            int c = c0 + n * 8 + 2 * (lane % 4);
            if (c >= g.in) continue;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                int o = o0 + m * 16 + lane / 4 + 8 * half;
                if (o >= g.out) continue;
                float* to =
                    partial + ((static_cast<int64_t>(blockIdx.y) * g.out + o) * taps + tap) * g.in + c;
                to[0] = sums[m][n][2 * half];
                to[1] = sums[m][n][2 * half + 1];
            }
        }
    }
}

template <class T, int TM, int TN, int KW>
void run(const Conv3dWeightGradArgs& args, Lines g) {
    g.out_tiles = (g.out + TM - 1) / TM;
    g.in_tiles = (g.in + TN - 1) / TN;
    int64_t tiles = int64_t{g.out_tiles} * g.in_tiles * g.taps[0] * g.taps[1];
    // Enough blocks to fill the device a few times over, but some lines for each.
    int64_t wanted = std::clamp<int64_t>(132 * 24 / tiles, 1, std::max<int64_t>(1, g.count / 4));
    g.per_part = (g.count + wanted - 1) / wanted;
    int64_t parts = (g.count + g.per_part - 1) / g.per_part, weights = args.dweight.numel();
    Tensor partial = empty({parts, weights}, DType::F32, args.x.device());
    const Tensor& past = args.options.past;
    dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(parts));
    conv_weight_kernel<T, TM, TN, KW><<<grid, 32 * KW, 0, stream_of(args.x.device())>>>(
        pointer<T>(args.x), past.defined() ? pointer<T>(past) : nullptr, pointer<T>(args.dy),
        pointer<float>(partial), g);
    check_launch("conv3d", args.x.device());
    Tensor y = args.dweight.reshape({1, weights});
    sum_parts(partial, parts, y);
}

template <class T, int TM, int TN>
void by_width(const Conv3dWeightGradArgs& args, const Lines& g) {
    g.taps[2] == 3 ? run<T, TM, TN, 3>(args, g) : run<T, TM, TN, 1>(args, g);
}

// A tile of 48 where it is filled, else one of 32.
template <class T>
void by_tiles(const Conv3dWeightGradArgs& args, const Lines& g) {
    bool wide_out = g.out % 48 == 0, wide_in = g.in % 48 == 0;
    if (wide_out) return wide_in ? by_width<T, 48, 48>(args, g) : by_width<T, 48, 32>(args, g);
    wide_in ? by_width<T, 32, 48>(args, g) : by_width<T, 32, 32>(args, g);
}

}  // namespace

bool conv3d_weight_by_mma(const Conv3dWeightGradArgs& args) {
    const Conv3dOptions& o = args.options;
    const Tensor &x = args.x, &dy = args.dy, &dw = args.dweight;
    bool zeros = (o.space_mode == PadMode::zeros ||
                  o.pad_before[1] + o.pad_after[1] + o.pad_before[2] + o.pad_after[2] == 0) &&
                 (o.time_mode == PadMode::zeros || o.pad_before[0] + o.pad_after[0] == 0);
    bool fits = vectors_fit(x) && vectors_fit(dy) && (!o.past.defined() || vectors_fit(o.past));
    bool stride_1 = o.stride == std::array<int64_t, 3>{1, 1, 1};
    if (size_of(x.dtype()) != 2 || !zeros || !fits || !stride_1 || (dw.dim(3) != 1 && dw.dim(3) != 3) ||
        dy.numel() == 0)
        return false;
    if (dw.dim(2) == 3 && dw.dim(3) == 3) {
        conv3d_weight_by_strips(args);
        return true;
    }
    auto number = [](int64_t n) { return static_cast<int>(n); };
    Lines g{dy.dim(0) * dy.dim(1) * dy.dim(2),
            0,
            number(dy.dim(1)),
            number(dy.dim(2)),
            number(dy.dim(3)),
            number(x.dim(1)),
            number(x.dim(2)),
            number(x.dim(3)),
            o.past.defined() ? number(o.past.dim(1)) : 0,
            {number(dw.dim(1)), number(dw.dim(2)), number(dw.dim(3))},
            {number(o.pad_before[0]), number(o.pad_before[1]), number(o.pad_before[2])},
            number(dw.dim(0)),
            number(dw.dim(4)),
            0,
            0};
    x.dtype() == DType::BF16 ? by_tiles<bf16_t>(args, g) : by_tiles<f16_t>(args, g);
    return true;
}

}  // namespace sana::cuda
