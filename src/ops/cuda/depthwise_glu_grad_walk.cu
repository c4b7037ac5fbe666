// The derivative of depthwise_glu in 16 bits, in two passes of threads that keep two channels of a strip of rows and walk
// along the columns, the next column on its way:
//   1  dz = [dy silu(g), dy a silu'(g)] with a and g as the forward pass makes them: a pair of channels of both halves
//   2  dx = silu'(x) * (dz with the kernel turned round), and of the same window of three columns of dz the sums
//      dweight[k] = silu(x) dz[-k] and dbias = dz over some strips; then these parts are added up, in order
// bytes, times 2F a position and 2 each: x and dy/2 read and dz written, then dz and x read and dx written: 5.5, and the halos
// from L2. About 30 instructions a value and pass.
#include "ops/cuda/depthwise_glu_grad.h"

#include "ops/cuda/device/depthwise_walk.cuh"
#include "ops/cuda/device/derivative.cuh"

namespace sana::cuda {

namespace {

constexpr int kHiddenRows = 6, kInputRows = 6;

// Where the sums of the forward pass go: with dy to dz.
template <class T, int R>
struct ToHiddenGrad {
    const T* dy;
    T* dz;
    uint32_t coming[R];  // dy of the next column

    __device__ __forceinline__ void fetch(const FrameSize& f, int col) {
#pragma unroll
        for (int r = 0; r < R; ++r) coming[r] = load_pair(dy + (r * f.width + col) * f.inner);
    }
    __device__ __forceinline__ void begin(int64_t position, int channel, const FrameSize& f) {
        dy += position * f.inner + channel;
        dz += position * 2 * f.inner + channel;
        fetch(f, 0);
    }
    __device__ __forceinline__ void operator()(const FrameSize& f, int col, const float (&sums)[R][4]) {
        float da[R][2], dg[R][2];
#pragma unroll
        for (int r = 0; r < R; ++r) {
            float2 d = floats<T>(coming[r]);
#pragma unroll
            for (int v = 0; v < 2; ++v) {
                constexpr float kLog2e = 1.4426950408889634f;
                float g = sums[r][2 + v], s = reciprocal_fast(1.0f + exp2_fast(g * -kLog2e)), value = g * s,
                      up = v == 0 ? d.x : d.y;
                da[r][v] = up * value;
                dg[r][v] = up * sums[r][v] * fmaf(value, 1.0f - s, s);
            }
        }
        fetch(f, min(col + 1, f.width - 1));
#pragma unroll
        for (int r = 0; r < R; ++r) {
            T* to = dz + (r * f.width + col) * 2 * f.inner;
            store<2>(to, da[r]);
            store<2>(to + f.inner, dg[r]);
        }
    }
    __device__ __forceinline__ void finish() const {}
};

template <class T, int R>
__global__ void __launch_bounds__(128, 3)
    hidden_grad_walk_kernel(const T* __restrict__ x, const T* __restrict__ weight, const T* __restrict__ bias,
                            ToHiddenGrad<T, R> to, FrameSize f) {
    int channel = 2 * static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (channel >= f.inner) return;
    // The last strip ends with the frame: what it has in common with the one before is made twice, and is the same.
    int first = min(static_cast<int>(blockIdx.y) * R, f.height - R);
    depthwise_walk<R>(x, weight, bias, to, f, static_cast<int64_t>(blockIdx.z), first, channel);
}

// One strip of the way back: R rows of two of the 2F channels. Whole: all strips have R rows.
template <class T, int R, bool Whole>
struct BackWalk {
    using Column = float[R + 2][2];  // of dz, from the row above the strip
    const char *x, *dz;              // the next column that is fetched; dz: from the row above the strip
    char* dx;                        // the column
    unsigned row_bytes, pixel_bytes;
    int width, rows;  // rows: of the frame, from the strip's first
    bool above;
    uint32_t x_coming[R], dz_coming[R + 2];

    __device__ __forceinline__ bool has(int r) const { return (Whole && r < R) || r < rows; }
    __device__ __forceinline__ bool has_dz(int r) const { return r == 0 ? above : has(r - 1); }
    __device__ __forceinline__ uint64_t row(int r) const { return static_cast<uint64_t>(row_bytes) * r; }

    __device__ __forceinline__ void fetch_x(int col) {
        if (col >= width) return;
#pragma unroll
        for (int r = 0; r < R; ++r) {
            if (has(r)) x_coming[r] = *reinterpret_cast<const uint32_t*>(x + row(r));
        }
        x += pixel_bytes;
    }
    __device__ __forceinline__ void fetch_dz(int col) {
        if (col >= width) {
#pragma unroll
            for (int r = 0; r < R + 2; ++r) dz_coming[r] = 0;
            return;
        }
#pragma unroll
        for (int r = 0; r < R + 2; ++r) {
            if (has_dz(r)) dz_coming[r] = *reinterpret_cast<const uint32_t*>(dz + row(r));
        }
        dz += pixel_bytes;
    }
    // The column that has come, and the next one on its way.
    __device__ __forceinline__ void take(int next, Column& to) {
#pragma unroll
        for (int r = 0; r < R + 2; ++r) {
            float2 d = floats<T>(dz_coming[r]);
            to[r][0] = d.x;
            to[r][1] = d.y;
        }
        fetch_dz(next);
    }
    // Column col, with dz of it and its left neighbour; the right one's comes in.
    __device__ __forceinline__ void step(int col, const float (&w)[9][2], float (&sums)[10][2], Column& left,
                                         Column& own, Column& right) {
        take(col + 2, right);
        uint32_t now[R];
#pragma unroll
        for (int r = 0; r < R; ++r) now[r] = x_coming[r];
        fetch_x(col + 1);
#pragma unroll
        for (int r = 0; r < R; ++r) {
            if (!has(r)) break;
            float2 pair = floats<T>(now[r]);
            float out[2];
#pragma unroll
            for (int v = 0; v < 2; ++v) {
                float in = v == 0 ? pair.x : pair.y, t = tanh_fast(0.5f * in), s = fmaf(0.5f, t, 0.5f),
                      value = in * s, sum = 0;
#pragma unroll
                for (int k = 0; k < 9; ++k) {
                    int from = r + 2 - k / 3;
                    float d = k % 3 == 0 ? right[from][v] : k % 3 == 1 ? own[from][v] : left[from][v];
                    sum = k == 0 ? w[k][v] * d : fmaf(w[k][v], d, sum);
                    sums[k][v] = fmaf(value, d, sums[k][v]);
                }
                sums[9][v] += own[r + 1][v];
                out[v] = sum * fmaf(value, fmaf(-0.5f, t, 0.5f), s);
            }
            store<2>(reinterpret_cast<T*>(dx + row(r)), out);
        }
        dx += pixel_bytes;
    }
    __device__ __forceinline__ void run(const float (&w)[9][2], float (&sums)[10][2]) {
#pragma unroll
        for (int r = 0; r < R + 2; ++r) dz_coming[r] = 0;  // rows outside the frame stay zero
#pragma unroll
        for (int r = 0; r < R; ++r) x_coming[r] = 0;
        Column a, b, c;
#pragma unroll
        for (int r = 0; r < R + 2; ++r) a[r][0] = a[r][1] = 0;
        fetch_dz(0);
        fetch_x(0);
        take(1, b);
        for (int col = 0;;) {
            step(col, w, sums, a, b, c);
            if (++col == width) return;
            step(col, w, sums, b, c, a);
            if (++col == width) return;
            step(col, w, sums, c, a, b);
            if (++col == width) return;
        }
    }
};

// partial [parts, 10, 2F]: nine taps, then the bias.
template <class T, int R, bool Whole>
__global__ void __launch_bounds__(128, 4)
    input_weight_grad_walk_kernel(const T* __restrict__ x, const T* __restrict__ weight,
                                  const T* __restrict__ dz, T* dx, float* partial, FrameSize f, int strips,
                                  int strips_per_part) {
    int channel = 2 * static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x), channels = 2 * f.inner;
    if (channel >= channels) return;
    float w[9][2], sums[10][2] = {};
#pragma unroll
    for (int k = 0; k < 9; ++k) load<2>(weight + static_cast<int64_t>(k) * channels + channel, w[k]);
    int per_frame = (f.height + R - 1) / R, first = static_cast<int>(blockIdx.y) * strips_per_part,
        last = min(first + strips_per_part, strips);
    for (int strip = first; strip < last; ++strip) {
        int row = strip % per_frame * R;
        int64_t start =
            (static_cast<int64_t>(strip / per_frame) * f.height + row) * f.width * channels + channel;
        unsigned pixel = channels * static_cast<unsigned>(sizeof(T)), line = pixel * f.width;
        BackWalk<T, R, Whole> walk{reinterpret_cast<const char*>(x + start),
                                   reinterpret_cast<const char*>(dz + start) - line,
                                   reinterpret_cast<char*>(dx + start),
                                   line,
                                   pixel,
                                   f.width,
                                   f.height - row,
                                   row > 0,
                                   {},
                                   {}};
        walk.run(w, sums);
    }
#pragma unroll
    for (int k = 0; k < 10; ++k)
        store<2>(partial + (static_cast<int64_t>(blockIdx.y) * 10 + k) * channels + channel, sums[k]);
}

template <class T, int R>
void hidden_grad(const DepthwiseGluGradArgs& args, const FrameSize& f, const Tensor& dz) {
    int64_t pairs = f.inner / 2, threads = depthwise_threads(pairs);
    dim3 grid(static_cast<unsigned>((pairs + threads - 1) / threads),
              static_cast<unsigned>((f.height + R - 1) / R),
              static_cast<unsigned>(args.x.dim(0) * args.x.dim(1)));
    hidden_grad_walk_kernel<T, R><<<grid, static_cast<unsigned>(threads), 0, stream_of(args.x.device())>>>(
        pointer<T>(args.x), pointer<T>(args.weight), args.bias.defined() ? pointer<T>(args.bias) : nullptr,
        ToHiddenGrad<T, R>{pointer<T>(args.dy), pointer<T>(dz), {}}, f);
}

template <class T, int R>
void input_weight_grad(const DepthwiseGluGradArgs& args, const FrameSize& f, const Tensor& dz) {
    int64_t pairs = f.inner, threads = depthwise_threads(pairs), blocks = (pairs + threads - 1) / threads,
            strips = args.x.dim(0) * args.x.dim(1) * ((f.height + R - 1) / R);
    // Parts for several times the blocks that fit the device at once, that the last ones do not run alone.
    int64_t wanted = std::min<int64_t>(65535, std::max<int64_t>(1, 132 * 40 / blocks)),
            per_part = (strips + wanted - 1) / wanted, parts = (strips + per_part - 1) / per_part;
    Tensor partial = empty({parts, 10, 2 * pairs}, DType::F32, args.x.device()),
           sums = empty({1, 20 * pairs}, args.x.dtype(), args.x.device());
    auto* kernel = f.height % R == 0 ? input_weight_grad_walk_kernel<T, R, true>
                                     : input_weight_grad_walk_kernel<T, R, false>;
    dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(parts));
    kernel<<<grid, static_cast<unsigned>(threads), 0, stream_of(args.x.device())>>>(
        pointer<T>(args.x), pointer<T>(args.weight), pointer<T>(dz), pointer<T>(args.dx),
        pointer<float>(partial), f, static_cast<int>(strips), static_cast<int>(per_part));
    check_launch("depthwise_glu", args.x.device());
    sum_parts(partial, parts, sums);
    copy(sums.cols_slice(0, 18 * pairs).reshape(args.dweight.shape()), args.dweight);
    copy(sums.cols_slice(18 * pairs, 2 * pairs).reshape(args.dbias.shape()), args.dbias);
}

}  // namespace

bool depthwise_glu_grad_walk(const DepthwiseGluGradArgs& args) {
    if (!depthwise_walks(args.x, kHiddenRows,
                         {args.x.raw(), args.weight.raw(), args.bias.defined() ? args.bias.raw() : nullptr,
                          args.dy.raw(), args.dx.raw()}))
        return false;
    FrameSize f{static_cast<int>(args.x.dim(2)), static_cast<int>(args.x.dim(3)),
                static_cast<int>(args.x.dim(4) / 2)};
    Tensor dz = empty(args.x.shape(), args.x.dtype(), args.x.device());
    dispatch_cuda("depthwise_glu", args.x.dtype(), [&]<class T>() {
        if constexpr (sizeof(T) == 2) {
            hidden_grad<T, kHiddenRows>(args, f, dz);
            input_weight_grad<T, kInputRows>(args, f, dz);
        }
    });
    return true;
}

}  // namespace sana::cuda
