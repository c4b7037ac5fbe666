// The derivative of depthwise_glu for fp32, odd widths and low frames (others: depthwise_glu_grad_walk.cu), in two passes,
// each with threads that keep two channels of a few rows and walk along the columns with a window of three columns in
// registers, the next column on its way:
//   1  dz = [dy silu(g), dy a silu'(g)] from x and dy
//   2  dx = silu'(x) * (dz with the kernel turned round), and of the same window the sums dweight[k] = silu(x) dz[-k] and
//      dbias = dz over a part of the rows; then the parts are added up, in order
#include "ops/cuda/depthwise_glu_grad.h"

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

// R + 2 rows and three columns of V channels around R pixels of a column; columns move in from the right.
template <class T, int V, int R, float (*Map)(float)>
struct Window {
    const T* frame;  // at the thread's channel
    int height, width, row;
    int64_t stride;  // between neighbouring pixels
    float at[R + 2][3][V];
    Vector<T, V> coming[R + 2];  // of the column after the last

    __device__ bool inside(int r, int col) const {
        int h = row + r - 1;
        return h >= 0 && h < height && col < width;
    }
    __device__ void fetch(int col) {
#pragma unroll
        for (int r = 0; r < R + 2; ++r) {
            if (inside(r, col)) {
                const T* from = frame + (static_cast<int64_t>(row + r - 1) * width + col) * stride;
                coming[r] = *reinterpret_cast<const Vector<T, V>*>(from);
            }
        }
    }
    // After this the window is centred on col.
    __device__ void advance(int col) {
#pragma unroll
        for (int r = 0; r < R + 2; ++r) {
#pragma unroll
            for (int v = 0; v < V; ++v) {
                at[r][0][v] = at[r][1][v];
                at[r][1][v] = at[r][2][v];
                at[r][2][v] = inside(r, col + 1) ? Map(to_float(coming[r].values[v])) : 0.0f;
            }
        }
        fetch(col + 2);
    }
    __device__ void start() {
#pragma unroll
        for (int r = 0; r < R + 2; ++r) {
#pragma unroll
            for (int v = 0; v < V; ++v) at[r][1][v] = at[r][2][v] = 0;
        }
        fetch(0);
        advance(-1);
    }
};

// A group of R rows of a frame.
template <int R>
__host__ __device__ int groups_of(const Frames& f) {
    return (f.height + R - 1) / R;
}

template <class T, int V, int R>
__global__ void __launch_bounds__(128)
    hidden_grad_kernel(const T* x, const T* weight, const T* bias, const T* dy, T* dz, Frames f) {
    int64_t channel = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * V,
            group = blockIdx.y + static_cast<int64_t>(gridDim.y) * blockIdx.z;
    if (channel >= f.inner || group >= f.count * groups_of<R>(f)) return;
    int64_t stride = 2 * f.inner, frame = group / groups_of<R>(f);
    int row = static_cast<int>(group % groups_of<R>(f)) * R;
    Window<T, V, R, with_silu> a;
    a.frame = x + frame * f.height * f.width * stride + channel;
    a.height = f.height;
    a.width = f.width;
    a.row = row;
    a.stride = stride;
    Window<T, V, R, with_silu> g = a;
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
#pragma unroll
        for (int r = 0; r < R; ++r) {
            if (row + r >= f.height) break;
            int64_t pixel = (frame * f.height + row + r) * f.width + col;
            float d[V], da[V], dg[V];
            load<V>(dy + pixel * f.inner + channel, d);
#pragma unroll
            for (int v = 0; v < V; ++v) {
                float za = start_a[v], zg = start_g[v];
#pragma unroll
                for (int k = 0; k < 9; ++k) {
                    za += wa[k][v] * a.at[r + k / 3][k % 3][v];
                    zg += wg[k][v] * g.at[r + k / 3][k % 3][v];
                }
                da[v] = d[v] * silu(zg);
                dg[v] = d[v] * za * silu_slope(zg);
            }
            store<V>(dz + pixel * stride + channel, da);
            store<V>(dz + pixel * stride + channel + f.inner, dg);
        }
    }
}

// partial [parts, 10, 2F]: nine taps, then the bias.
template <class T, int V, int R>
__global__ void __launch_bounds__(128)
    input_weight_grad_kernel(const T* x, const T* weight, const T* dz, T* dx, float* partial, Frames f,
                             int64_t groups_per_part) {
    int64_t channel = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * V, stride = 2 * f.inner;
    if (channel >= stride) return;
    int64_t first = blockIdx.y * groups_per_part,
            last = min(first + groups_per_part, f.count * groups_of<R>(f));
    float w[9][V], sums[10][V] = {};
#pragma unroll
    for (int k = 0; k < 9; ++k) load<V>(weight + k * stride + channel, w[k]);
    for (int64_t group = first; group < last; ++group) {
        int64_t frame = group / groups_of<R>(f);
        int row = static_cast<int>(group % groups_of<R>(f)) * R;
        Window<T, V, R, plain> z;
        z.frame = dz + frame * f.height * f.width * stride + channel;
        z.height = f.height;
        z.width = f.width;
        z.row = row;
        z.stride = stride;
        z.start();
        int64_t start = (frame * f.height + row) * f.width;
        Vector<T, V> coming[R];  // x of the next column
        auto fetch = [&](int col) {
#pragma unroll
            for (int r = 0; r < R; ++r) {
                if (row + r >= f.height || col >= f.width) continue;
                const T* from = x + (start + static_cast<int64_t>(r) * f.width + col) * stride + channel;
                coming[r] = *reinterpret_cast<const Vector<T, V>*>(from);
            }
        };
        fetch(0);
        for (int col = 0; col < f.width; ++col) {
            Vector<T, V> now[R];
#pragma unroll
            for (int r = 0; r < R; ++r) now[r] = coming[r];
            fetch(col + 1);
            z.advance(col);
#pragma unroll
            for (int r = 0; r < R; ++r) {
                if (row + r >= f.height) break;
                float out[V] = {};
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    float in = to_float(now[r].values[v]), s = 1 / (1 + __expf(-in)), value = in * s;
#pragma unroll
                    for (int k = 0; k < 9; ++k) {
                        float d = z.at[r + 2 - k / 3][2 - k % 3][v];
                        out[v] += w[k][v] * d;
                        sums[k][v] += value * d;
                    }
                    sums[9][v] += z.at[r + 1][1][v];
                    out[v] *= s * (1 + in * (1 - s));
                }
                store<V>(dx + (start + static_cast<int64_t>(r) * f.width + col) * stride + channel, out);
            }
        }
    }
#pragma unroll
    for (int k = 0; k < 10; ++k)
        store<V>(partial + (static_cast<int64_t>(blockIdx.y) * 10 + k) * stride + channel, sums[k]);
}

template <class T, int V>
void run(const DepthwiseGluGradArgs& args) {
    constexpr int kHiddenRows = 2, kRows = 4;
    Frames f{args.x.dim(0) * args.x.dim(1), static_cast<int>(args.x.dim(2)), static_cast<int>(args.x.dim(3)),
             static_cast<int>(args.x.dim(4) / 2)};
    int64_t channels = 2 * f.inner, groups = f.count * groups_of<kHiddenRows>(f);
    cudaStream_t stream = stream_of(args.x.device());
    Tensor dz = empty(args.x.shape(), args.x.dtype(), args.x.device());
    auto blocks = [](int64_t n) { return static_cast<unsigned>((n + 128 * V - 1) / (128 * V)); };
    unsigned lines = static_cast<unsigned>(std::min<int64_t>(groups, 32768)),
             layers = static_cast<unsigned>((groups + lines - 1) / lines);
    hidden_grad_kernel<T, V, kHiddenRows><<<dim3(blocks(f.inner), lines, layers), 128, 0, stream>>>(
        pointer<T>(args.x), pointer<T>(args.weight), args.bias.defined() ? pointer<T>(args.bias) : nullptr,
        pointer<T>(args.dy), pointer<T>(dz), f);
    // Parts for several times the blocks that fit the device at once, that the last ones do not run alone.
    groups = f.count * groups_of<kRows>(f);
    int64_t wanted = std::max<int64_t>(1, 132 * 24 / blocks(channels));
    int64_t per_part = (groups + wanted - 1) / wanted, parts = (groups + per_part - 1) / per_part;
    Tensor partial = empty({parts, 10, channels}, DType::F32, args.x.device());
    Tensor sums = empty({1, 10 * channels}, args.x.dtype(), args.x.device());
    input_weight_grad_kernel<T, V, kRows>
        <<<dim3(blocks(channels), static_cast<unsigned>(parts)), 128, 0, stream>>>(
            pointer<T>(args.x), pointer<T>(args.weight), pointer<T>(dz), pointer<T>(args.dx),
            pointer<float>(partial), f, per_part);
    check_launch("depthwise_glu", args.x.device());
    sum_parts(partial, parts, sums);
    copy(sums.cols_slice(0, 9 * channels).reshape(args.dweight.shape()), args.dweight);
    copy(sums.cols_slice(9 * channels, channels).reshape(args.dbias.shape()), args.dbias);
}

}  // namespace

void depthwise_glu_grad(const DepthwiseGluGradArgs& args) {
    if (args.x.numel() == 0 || depthwise_glu_grad_walk(args)) return;
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
