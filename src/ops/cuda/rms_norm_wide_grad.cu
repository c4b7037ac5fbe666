// The derivative of rms_norm for rows of 129 to 384 vectors: a block of 96 threads takes row after row, each in registers
// with the next one on its way, and a thread keeps the sums of its columns for the gradient of the weight. Without an
// activation one barrier a row gives both sums over the row: dot = scaling * sum(dy f x).
// bytes: x and dy read once, dx written once; the sums of 528 blocks at most, added up in order.
#include "ops/cuda/rms_norm_wide_grad.h"

#include "ops/cuda/device/derivative.cuh"

namespace sana::cuda {

namespace {

constexpr int kThreads = 96, kWarps = kThreads / 32;
template <int K>
constexpr int kBlocks = K < 4 ? 4 : 2;  // at once on a multiprocessor

template <class T>
struct WideRows {
    Rows<T> x, dy;
    const T* weight;  // null: 1
    T* dx;
    float* partial;  // [blocks, C], null: not wanted
    int rows, cols;
    float eps, floor, offset;
    Activation activation;
};

// The sums of a and b over the block, for every thread; turn: 0 and 1 by turns, that one barrier is enough.
__device__ __forceinline__ float2 block_sums(float a, float b, int turn) {
    __shared__ float2 partial[2][kWarps];
    a = warp_sum(a);
    b = warp_sum(b);
    if (threadIdx.x % 32 == 0) partial[turn][threadIdx.x / 32] = make_float2(a, b);
    __syncthreads();
    float2 sum = partial[turn][0];
#pragma unroll
    for (int i = 1; i < kWarps; ++i) {
        sum.x += partial[turn][i].x;
        sum.y += partial[turn][i].y;
    }
    return sum;
}

template <int V, class T>
__device__ __forceinline__ void unpack(const Vector<T, V>& from, float (&to)[V]) {
#pragma unroll
    for (int v = 0; v < V; ++v) to[v] = to_float(from.values[v]);
}

// A thread has the vectors threadIdx.x + k * 96, k < K, of every row; those beyond the row are zero.
template <class T, int K, bool Linear>
__global__ void __launch_bounds__(kThreads, kBlocks<K>) wide_rows_kernel(WideRows<T> p) {
    constexpr int V = kLanes<T>;
    using Row = Vector<T, V>[K];
    int start = static_cast<int>(threadIdx.x) * V;
    bool has[K];
    float sums[K][V] = {}, f[K][V];
    Row x = {}, dy = {};
#pragma unroll
    for (int k = 0; k < K; ++k) {
        has[k] = start + k * kThreads * V < p.cols;
#pragma unroll
        for (int v = 0; v < V; ++v) f[k][v] = 1;
        if (!has[k] || p.weight == nullptr) continue;
        load<V>(p.weight + start + k * kThreads * V, f[k]);
#pragma unroll
        for (int v = 0; v < V; ++v) f[k][v] += p.offset;
    }
    auto fetch = [&](const Rows<T>& from, int64_t row, Row& to) {
        const T* at = from.data + row * from.stride + start;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            if (has[k]) to[k] = *reinterpret_cast<const Vector<T, V>*>(at + k * kThreads * V);
        }
    };
    int row = static_cast<int>(blockIdx.x), turn = 0;
    fetch(p.x, row, x);
    fetch(p.dy, row, dy);
    float n = static_cast<float>(p.cols);
    for (; row < p.rows; row += static_cast<int>(gridDim.x)) {
        float a[K][V], g[K][V], squares = 0, dot = 0;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            unpack(x[k], a[k]);
            unpack(dy[k], g[k]);
#pragma unroll
            for (int v = 0; v < V; ++v) {
                squares += a[k][v] * a[k][v];
                if (Linear) dot += g[k][v] * f[k][v] * a[k][v];
            }
        }
        int next = row + static_cast<int>(gridDim.x);
        if (next < p.rows) {
            fetch(p.x, next, x);
            fetch(p.dy, next, dy);
        }
        float2 total = block_sums(squares, dot, turn);
        turn ^= 1;
        float root = sqrtf(total.x),
              scaling = p.floor > 0 ? sqrtf(n) / fmaxf(root, p.floor) : 1 / sqrtf(total.x / n + p.eps);
        if (Linear) {
            dot = scaling * total.y / n;
        } else {
#pragma unroll
            for (int k = 0; k < K; ++k) {
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    g[k][v] *= slope(p.activation, a[k][v] * scaling * f[k][v]);
                    dot += g[k][v] * f[k][v] * a[k][v] * scaling;
                }
            }
            dot = block_sums(dot, 0, turn).x / n;
            turn ^= 1;
        }
        if (p.floor > 0 && root <= p.floor) dot = 0;
        T* to = p.dx + static_cast<int64_t>(row) * p.cols + start;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            float out[V];
#pragma unroll
            for (int v = 0; v < V; ++v) {
                float normal = a[k][v] * scaling;
                out[v] = scaling * (g[k][v] * f[k][v] - normal * dot);
                sums[k][v] += normal * g[k][v];
            }
            if (has[k]) store<V>(to + k * kThreads * V, out);
        }
    }
    if (p.partial == nullptr) return;
    float* to = p.partial + static_cast<int64_t>(blockIdx.x) * p.cols + start;
#pragma unroll
    for (int k = 0; k < K; ++k) {
#pragma unroll
        for (int v = 0; v < V && has[k]; v += 4)
            store<4>(to + k * kThreads * V + v, {sums[k][v], sums[k][v + 1], sums[k][v + 2], sums[k][v + 3]});
    }
}

template <class T, int K>
auto kernel_of(bool linear) {
    return linear ? wide_rows_kernel<T, K, true> : wide_rows_kernel<T, K, false>;
}

}  // namespace

bool rms_norm_wide_grad(const RmsNormGradArgs& args) {
    const RmsNormOptions& o = args.options;
    int64_t rows = args.x.rows(), cols = args.x.cols(), vectors = cols * size_of(args.x.dtype()) / 16;
    bool weighted = args.weight.defined();
    if (!vectors_fit(args.x) || !vectors_fit(args.dy) || (weighted && !vectors_fit(args.weight)) ||
        size_of(args.x.dtype()) != 2 || vectors <= 128 || vectors > 4 * kThreads || rows > INT32_MAX / 2)
        return false;
    dispatch_cuda("rms_norm", args.x.dtype(), [&]<class T>() {
        if constexpr (sizeof(T) == 2) {
            int64_t blocks =
                std::min<int64_t>(rows, 132 * (vectors <= 3 * kThreads ? kBlocks<3> : kBlocks<4>));
            Tensor partial =
                args.dweight.defined() ? empty({blocks, cols}, DType::F32, args.x.device()) : Tensor();
            WideRows<T> p{rows_of<T>(args.x),
                          rows_of<T>(args.dy),
                          weighted ? pointer<T>(args.weight) : nullptr,
                          pointer<T>(args.dx),
                          partial.defined() ? pointer<float>(partial) : nullptr,
                          static_cast<int>(rows),
                          static_cast<int>(cols),
                          o.eps,
                          o.floor,
                          o.weight_offset,
                          o.activation};
            bool linear = o.activation == Activation::none;
            auto* kernel = vectors <= 2 * kThreads   ? kernel_of<T, 2>(linear)
                           : vectors <= 3 * kThreads ? kernel_of<T, 3>(linear)
                                                     : kernel_of<T, 4>(linear);
            kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream_of(args.x.device())>>>(p);
            check_launch("rms_norm", args.x.device());
            if (!partial.defined()) return;
            Tensor sum = args.dweight.reshape({1, cols});
            sum_parts(partial, blocks, sum);
        }
    });
    return true;
}

}  // namespace sana::cuda
