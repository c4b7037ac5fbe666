// Derivatives of layer_norm_modulate, with its rows in registers (device/rows.cuh), and of rms_norm: a row by a group of
// threads, its elements read from memory once and from the cache after that, as the sums come one after the other. Groups
// go over many rows and keep what rms_norm's rows add to the gradient of its weight in shared memory; the groups' sums are
// added up in order. Wide rows of rms_norm in 16 bits: rms_norm_wide_grad.cu.
#include "core/device_copy.h"
#include "ops/cuda/device/derivative.cuh"
#include "ops/cuda/device/rows.cuh"
#include "ops/cuda/gradients.h"
#include "ops/cuda/rms_norm_wide_grad.h"

namespace sana::cuda {

namespace {

template <class T>
struct LayerNormGrad {
    Rows<T> dy, scale;
    T *dx, *normal;
    Divisor per_group;  // rows that share a scale
    float eps;

    template <class R>
    __device__ void operator()(R& row, float (&x)[R::K][R::V]) const {
        int64_t group = per_group.quotient(row.index);
        Vector<T, R::V> out[R::K], factor[R::K];
        row.load(dy.data + row.index * dy.stride, out);
        row.load(scale.data + group * scale.stride, factor);
        float n = static_cast<float>(row.cols), sum = 0;
        float w[R::K][R::V];  // dy (1 + scale)
        row.vectors([&](int k) {
            float f[R::V];
            unpack(out[k], w[k]);
            unpack(factor[k], f);
#pragma unroll
            for (int v = 0; v < R::V; ++v) {
                w[k][v] *= 1 + f[v];
                sum += x[k][v];
            }
        });
        float mean = row.sum(sum) / n;
        float sums[3] = {0, 0, 0};  // x^2, w, w x
        row.elements([&](int k, int v) {
            x[k][v] -= mean;
            sums[0] += x[k][v] * x[k][v];
            sums[1] += w[k][v];
            sums[2] += w[k][v] * x[k][v];
        });
        row.sum(sums);
        float inverse = rsqrtf(sums[0] / n + eps), total = sums[1] / n, dot = sums[2] / n * inverse;
        row.elements([&](int k, int v) {
            x[k][v] *= inverse;
            w[k][v] = inverse * (w[k][v] - total - x[k][v] * dot);
        });
        int64_t at = static_cast<int64_t>(row.index) * row.cols + row.first;
        row.vectors([&](int k) {
            store<R::V>(normal + at + k * R::kStep, x[k]);
            store<R::V>(dx + at + k * R::kStep, w[k]);
        });
    }
};

// The sum over the threads of a row, for each of them.
template <int Threads>
__device__ __forceinline__ float row_sum(float x) {
    if constexpr (Threads > 32) {
        return block_sum(x);
    } else {
#pragma unroll
        for (int offset = Threads / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
        return x;
    }
}

template <class T>
struct RmsNormGrad {
    Rows<T> x, dy;
    const T* weight;  // null: 1
    T* dx;
    float* partial;  // [blocks, C], null: not wanted
    int64_t cols;
    float eps, floor, offset;
    Activation activation;

    // sums [C]: of this group of threads; none for a row that does not count. Each thread comes back to the same elements.
    template <int Threads, int V>
    __device__ void row(int64_t r, float* sums) const {
        const T *in = x.data + r * x.stride, *out = dy.data + r * dy.stride;
        int64_t start = (threadIdx.x % Threads) * V;
        float n = static_cast<float>(cols), squares = 0;
        float a[V], g[V], f[V];
        for (int64_t c = start; c < cols; c += Threads * V) {
            load<V>(in + c, a);
#pragma unroll
            for (int v = 0; v < V; ++v) squares += a[v] * a[v];
        }
        squares = row_sum<Threads>(squares);
        bool floored = floor > 0 && sqrtf(squares) <= floor;
        float scaling = floor > 0 ? sqrtf(n) / fmaxf(sqrtf(squares), floor) : 1 / sqrtf(squares / n + eps);
        float dot = 0;
        auto fetch = [&](int64_t c) {
            load<V>(in + c, a);
            load<V>(out + c, g);
            if (weight != nullptr) load<V>(weight + c, f);
#pragma unroll
            for (int v = 0; v < V; ++v) {
                f[v] = weight != nullptr ? f[v] + offset : 1.0f;
                a[v] *= scaling;
                g[v] *= slope(activation, a[v] * f[v]);
            }
        };
        for (int64_t c = start; c < cols; c += Threads * V) {
            fetch(c);
#pragma unroll
            for (int v = 0; v < V; ++v) dot += g[v] * f[v] * a[v];
        }
        dot = row_sum<Threads>(dot) / n;
        if (floored) dot = 0;
        for (int64_t c = start; c < cols; c += Threads * V) {
            fetch(c);
#pragma unroll
            for (int v = 0; v < V; ++v) {
                f[v] = scaling * (g[v] * f[v] - a[v] * dot);
                if (sums != nullptr) sums[c + v] += a[v] * g[v];
            }
            store<V>(dx + r * cols + c, f);
        }
    }
};

template <int Threads, int V, class F>
__global__ void rms_rows_kernel(int64_t rows, F f) {
    extern __shared__ float sums[];  // [groups, C]
    int groups = static_cast<int>(blockDim.x) / Threads, group = static_cast<int>(threadIdx.x) / Threads;
    for (int64_t c = threadIdx.x; c < groups * f.cols; c += blockDim.x) sums[c] = 0;
    __syncthreads();
    int64_t step = static_cast<int64_t>(gridDim.x) * groups;
    // All groups of a block make as many turns as its first: they take part in sums over a warp or the block. Beyond the
    // last row they do it again.
    for (int64_t first = static_cast<int64_t>(blockIdx.x) * groups; first < rows; first += step) {
        int64_t row = first + group;
        bool counts = f.partial != nullptr && row < rows;
        f.template row<Threads, V>(row < rows ? row : rows - 1, counts ? sums + group * f.cols : nullptr);
    }
    if (f.partial == nullptr) return;
    __syncthreads();
    for (int64_t c = threadIdx.x; c < f.cols; c += blockDim.x) {
        float sum = 0;
        for (int g = 0; g < groups; ++g) sum += sums[g * f.cols + c];
        f.partial[blockIdx.x * f.cols + c] = sum;
    }
}

}  // namespace

void layer_norm_modulate_grad(const LayerNormModulateGradArgs& args) {
    dispatch_cuda("layer_norm_modulate", args.x.dtype(), [&]<class T>() {
        LayerNormGrad<T> f{rows_of<T>(args.dy),
                           rows_of<T>(args.scale),
                           pointer<T>(args.dx),
                           pointer<T>(args.normal),
                           Divisor(std::max<int64_t>(1, args.x.dim(1) / args.scale.dim(1))),
                           args.eps};
        for_rows<T>("layer_norm_modulate", args.x, vectors_fit(args.dy) && vectors_fit(args.scale), f);
    });
}

namespace {

template <class T, int V>
void rms_by_width(const RmsNormGradArgs& args, RmsNormGrad<T> f) {
    int64_t rows = args.x.rows(), cols = args.x.cols(), vectors = (cols + V - 1) / V;
    constexpr int64_t kShared = 48 << 10, kRowBytes = sizeof(float);
    auto start = [&](auto threads) {
        constexpr int kThreads = decltype(threads)::value;
        int64_t groups = std::clamp<int64_t>(kShared / (cols * kRowBytes), 1, 256 / kThreads);
        // Whole warps.
        if (kThreads < 32) groups = std::max<int64_t>(1, groups * kThreads / 32) * 32 / kThreads;
        int64_t blocks = std::min<int64_t>((rows + groups - 1) / groups, 132 * 8);
        Tensor partial;
        if (args.dweight.defined()) {
            partial = empty({blocks, cols}, DType::F32, args.x.device());
            f.partial = pointer<float>(partial);
        }
        rms_rows_kernel<kThreads, V>
            <<<static_cast<unsigned>(blocks), static_cast<unsigned>(groups * kThreads),
               static_cast<size_t>(groups * cols * kRowBytes), stream_of(args.x.device())>>>(rows, f);
        check_launch("rms_norm", args.x.device());
        if (!args.dweight.defined()) return;
        Tensor sum = args.dweight.reshape({1, cols});
        sum_parts(partial, blocks, sum);
    };
    check(cols * kRowBytes <= kShared, "rms_norm: rows of ", cols,
          " elements are longer than the limit of the CUDA derivative, ", kShared / kRowBytes);
    if (vectors <= 4) {
        start(std::integral_constant<int, 4>());
    } else if (vectors <= 8) {
        start(std::integral_constant<int, 8>());
    } else if (vectors <= 16) {
        start(std::integral_constant<int, 16>());
    } else if (vectors <= 512) {  // a warp a row needs no barrier
        start(std::integral_constant<int, 32>());
    } else {
        start(std::integral_constant<int, 256>());
    }
}

}  // namespace

void rms_norm_grad(const RmsNormGradArgs& args) {
    if (args.x.numel() == 0) {
        if (args.dweight.defined()) fill_zero(args.dweight);
        return;
    }
    if (rms_norm_wide_grad(args)) return;
    const RmsNormOptions& o = args.options;
    dispatch_cuda("rms_norm", args.x.dtype(), [&]<class T>() {
        bool weighted = args.weight.defined();
        RmsNormGrad<T> f{rows_of<T>(args.x),
                         rows_of<T>(args.dy),
                         weighted ? pointer<T>(args.weight) : nullptr,
                         pointer<T>(args.dx),
                         nullptr,
                         args.x.cols(),
                         o.eps,
                         o.floor,
                         o.weight_offset,
                         o.activation};
        bool vectors = vectors_fit(args.x) && vectors_fit(args.dy) && (!weighted || vectors_fit(args.weight));
        vectors ? rms_by_width<T, kLanes<T>>(args, f) : rms_by_width<T, 1>(args, f);
    });
}

}  // namespace sana::cuda
