// The derivative of depthwise_glu in three passes, each with a thread that keeps two channels of a row and walks along its
// columns with a 3x3 window in registers:
//   1  dz = [dy silu(g), dy a silu'(g)] from x and dy     2  dx = silu'(x) * (dz with the kernel turned round)
//   3  dweight, dbias: sums of dz * silu(x) over a part of the rows, then over the parts, in order
#include "ops/cuda/device/derivative.cuh"
#include "ops/cuda/gradients.h"

namespace sana::cuda {

namespace {

struct Frames {
    int64_t count;
    int height, width, inner;  // inner: F
};

__device__ __forceinline__ float plain(float x) { return x; }
__device__ __forceinline__ float with_silu(float x) { return silu(x); }

// Three rows and columns of V channels around a column; columns move in from the right.
template <class T, int V, float (*Map)(float)>
struct Window {
    const T* frame;  // at the thread's channel
    int height, width, row;
    int64_t stride;  // between neighbouring pixels
    float at[3][3][V];

    __device__ void column(int to, int col) {
#pragma unroll
        for (int r = 0; r < 3; ++r) {
            int h = row + r - 1;
            bool inside = h >= 0 && h < height && col >= 0 && col < width;
            float value[V];
            if (inside) load<V>(frame + (static_cast<int64_t>(h) * width + col) * stride, value);
#pragma unroll
            for (int v = 0; v < V; ++v) at[r][to][v] = inside ? Map(value[v]) : 0.0f;
        }
    }
    __device__ void start() {
        column(1, -1);
        column(2, 0);
    }
    // After this the window is centred on col.
    __device__ void advance(int col) {
#pragma unroll
        for (int r = 0; r < 3; ++r) {
#pragma unroll
            for (int v = 0; v < V; ++v) {
                at[r][0][v] = at[r][1][v];
                at[r][1][v] = at[r][2][v];
            }
        }
        column(2, col + 1);
    }
};

// Thread -> (frame and row, channel), V channels each.
template <int V>
__device__ __forceinline__ bool place(const Frames& f, int64_t channels, int64_t& line, int64_t& channel) {
    channel = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * V;
    line = blockIdx.y + static_cast<int64_t>(gridDim.y) * blockIdx.z;
    return channel < channels && line < f.count * f.height;
}

template <class T, int V>
__global__ void __launch_bounds__(128)
    hidden_grad_kernel(const T* x, const T* weight, const T* bias, const T* dy, T* dz, Frames f) {
    int64_t line, channel;
    if (!place<V>(f, f.inner, line, channel)) return;
    int64_t stride = 2 * f.inner, frame = line / f.height;
    int row = static_cast<int>(line % f.height);
    Window<T, V, with_silu> a{
        x + frame * f.height * f.width * stride + channel, f.height, f.width, row, stride, {}};
    Window<T, V, with_silu> g = a;
    g.frame += f.inner;
    float wa[9][V], wg[9][V], start_a[V] = {}, start_g[V] = {};
#pragma unroll
    for (int k = 0; k < 9; ++k) {
        load<V>(weight + k * stride + channel, wa[k]);
        load<V>(weight + k * stride + channel + f.inner, wg[k]);
    }
    if (bias != nullptr) {
        load<V>(bias + channel, start_a);
        load<V>(bias + channel + f.inner, start_g);
    }
    a.start();
    g.start();
    for (int col = 0; col < f.width; ++col) {
        a.advance(col);
        g.advance(col);
        int64_t pixel = line * f.width + col;
        float d[V], da[V], dg[V];
        load<V>(dy + pixel * f.inner + channel, d);
#pragma unroll
        for (int v = 0; v < V; ++v) {
            float za = start_a[v], zg = start_g[v];
#pragma unroll
            for (int k = 0; k < 9; ++k) {
                za += wa[k][v] * a.at[k / 3][k % 3][v];
                zg += wg[k][v] * g.at[k / 3][k % 3][v];
            }
            da[v] = d[v] * silu(zg);
            dg[v] = d[v] * za * silu_slope(zg);
        }
        store<V>(dz + pixel * stride + channel, da);
        store<V>(dz + pixel * stride + channel + f.inner, dg);
    }
}

template <class T, int V>
__global__ void __launch_bounds__(128)
    input_grad_kernel(const T* x, const T* weight, const T* dz, T* dx, Frames f) {
    int64_t line, channel, stride = 2 * f.inner;
    if (!place<V>(f, stride, line, channel)) return;
    int64_t frame = line / f.height;
    Window<T, V, plain> z{dz + frame * f.height * f.width * stride + channel,
                          f.height,
                          f.width,
                          static_cast<int>(line % f.height),
                          stride,
                          {}};
    float w[9][V];
#pragma unroll
    for (int k = 0; k < 9; ++k) load<V>(weight + k * stride + channel, w[k]);
    z.start();
    for (int col = 0; col < f.width; ++col) {
        z.advance(col);
        int64_t at = (line * f.width + col) * stride + channel;
        float in[V], out[V] = {};
        load<V>(x + at, in);
#pragma unroll
        for (int v = 0; v < V; ++v) {
#pragma unroll
            for (int k = 0; k < 9; ++k) out[v] += w[k][v] * z.at[2 - k / 3][2 - k % 3][v];
            out[v] *= silu_slope(in[v]);
        }
        store<V>(dx + at, out);
    }
}

// partial [parts, 10, 2F]: nine taps, then the bias.
template <class T, int V>
__global__ void __launch_bounds__(128)
    weight_grad_kernel(const T* x, const T* dz, float* partial, Frames f, int64_t lines_per_part) {
    int64_t channel = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * V, stride = 2 * f.inner;
    if (channel >= stride) return;
    int64_t first = blockIdx.y * lines_per_part, last = min(first + lines_per_part, f.count * f.height);
    float sums[10][V] = {};
    for (int64_t line = first; line < last; ++line) {
        Window<T, V, with_silu> s{x + line / f.height * f.height * f.width * stride + channel,
                                  f.height,
                                  f.width,
                                  static_cast<int>(line % f.height),
                                  stride,
                                  {}};
        s.start();
        for (int col = 0; col < f.width; ++col) {
            s.advance(col);
            float d[V];
            load<V>(dz + (line * f.width + col) * stride + channel, d);
#pragma unroll
            for (int v = 0; v < V; ++v) {
#pragma unroll
                for (int k = 0; k < 9; ++k) sums[k][v] += d[v] * s.at[k / 3][k % 3][v];
                sums[9][v] += d[v];
            }
        }
    }
#pragma unroll
    for (int k = 0; k < 10; ++k)
        store<V>(partial + (static_cast<int64_t>(blockIdx.y) * 10 + k) * stride + channel, sums[k]);
}

template <class T, int V>
void run(const DepthwiseGluGradArgs& args) {
    Frames f{args.x.dim(0) * args.x.dim(1), static_cast<int>(args.x.dim(2)), static_cast<int>(args.x.dim(3)),
             static_cast<int>(args.x.dim(4) / 2)};
    int64_t lines = f.count * f.height, channels = 2 * f.inner;
    cudaStream_t stream = stream_of(args.x.device());
    Tensor dz = empty(args.x.shape(), args.x.dtype(), args.x.device());
    auto blocks = [](int64_t n) { return static_cast<unsigned>((n / V + 127) / 128); };
    unsigned rows = static_cast<unsigned>(std::min<int64_t>(lines, 32768)),
             layers = static_cast<unsigned>((lines + rows - 1) / rows);
    hidden_grad_kernel<T, V><<<dim3(blocks(f.inner + V - 1), rows, layers), 128, 0, stream>>>(
        pointer<T>(args.x), pointer<T>(args.weight), args.bias.defined() ? pointer<T>(args.bias) : nullptr,
        pointer<T>(args.dy), pointer<T>(dz), f);
    input_grad_kernel<T, V><<<dim3(blocks(channels + V - 1), rows, layers), 128, 0, stream>>>(
        pointer<T>(args.x), pointer<T>(args.weight), pointer<T>(dz), pointer<T>(args.dx), f);
    int64_t wanted = std::max<int64_t>(1, 132 * 8 / blocks(channels + V - 1));
    int64_t per_part = (lines + wanted - 1) / wanted, parts = (lines + per_part - 1) / per_part;
    Tensor partial = empty({parts, 10, channels}, DType::F32, args.x.device());
    Tensor sums = empty({1, 10 * channels}, args.x.dtype(), args.x.device());
    weight_grad_kernel<T, V>
        <<<dim3(blocks(channels + V - 1), static_cast<unsigned>(parts)), 128, 0, stream>>>(
            pointer<T>(args.x), pointer<T>(dz), pointer<float>(partial), f, per_part);
    check_launch("depthwise_glu", args.x.device());
    sum_parts(partial, parts, sums);
    copy(sums.cols_slice(0, 9 * channels).reshape(args.dweight.shape()), args.dweight);
    copy(sums.cols_slice(9 * channels, channels).reshape(args.dbias.shape()), args.dbias);
}

}  // namespace

void depthwise_glu_grad(const DepthwiseGluGradArgs& args) {
    if (args.x.numel() == 0) return;
    dispatch_cuda("depthwise_glu", args.x.dtype(), [&]<class T>() {
        auto even = [](const Tensor& x) {
            return !x.defined() || reinterpret_cast<uintptr_t>(x.raw()) % (2 * sizeof(T)) == 0;
        };
        bool pairs = args.x.dim(4) % 4 == 0 && even(args.x) && even(args.weight) && even(args.bias) &&
                     even(args.dy) && even(args.dx);
        pairs ? run<T, 2>(args) : run<T, 1>(args);
    });
}

}  // namespace sana::cuda
