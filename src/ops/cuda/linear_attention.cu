// Linear attention: row scales for every path, and the steps state, reduce and apply (device/linear_attention.cuh) for any
// head width and dtype as tiled fp32 products of 64 x 64 results. The fp32 units are their limit, 4*B*N*C*D FLOPs.
#include <climits>

#include "ops/cuda/cuda.h"
#include "ops/cuda/device/linear_attention.cuh"
#include "ops/linear_attention_fp8.h"

namespace sana::cuda {

namespace {

constexpr int kThreads = 256, kTile = 64, kDepth = 16, kSide = 4;  // a thread has kSide x kSide results

// A warp a row; blockIdx.y chooses the tensor.
template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    row_scales_kernel(const T* q, int64_t q_stride, const T* k, int64_t k_stride, float* scales, int64_t rows,
                      int cols, float eps) {
    int64_t row = (blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x) / 32;
    if (row >= rows) return;
    const T* x = blockIdx.y == 0 ? q + row * q_stride : k + row * k_stride;
    float squares = 0;
#pragma unroll 4
    for (int col = static_cast<int>(threadIdx.x % 32) * V; col < cols; col += 32 * V) {
        float values[V];
        load<V>(x + col, values);
#pragma unroll
        for (int v = 0; v < V; ++v) squares += values[v] * values[v];
    }
    squares = warp_sum(squares);
    if (threadIdx.x % 32 == 0) {
        scales[blockIdx.y * rows + row] = 1 / sqrtf(squares / static_cast<float>(cols) + eps);
    }
}

// Channels [first, first + 2 * pairs) of one head of a row, normalised and rectified; zeros outside.
template <class T>
__device__ __forceinline__ float2 feature_pair(const T* row, const T* weight, float scale, int channel,
                                               int width) {
    if (channel >= width) return {0.0f, 0.0f};
    return {relu(to_float(row[channel]) * scale * to_float(weight[channel])),
            relu(to_float(row[channel + 1]) * scale * to_float(weight[channel + 1]))};
}

struct Sums {
    float of[kSide][kSide] = {};

    // of[a][b] += left[d][4 * (t / 16) + a] * right[d][4 * (t % 16) + b]
    __device__ __forceinline__ void add(const float (&left)[kDepth][kTile],
                                        const float (&right)[kDepth][kTile]) {
        int row = threadIdx.x / 16 * kSide, col = threadIdx.x % 16 * kSide;
#pragma unroll
        for (int d = 0; d < kDepth; ++d) {
            float x[kSide], y[kSide];
            load<kSide>(&left[d][row], x);
            load<kSide>(&right[d][col], y);
#pragma unroll
            for (int a = 0; a < kSide; ++a) {
#pragma unroll
                for (int b = 0; b < kSide; ++b) of[a][b] += x[a] * y[b];
            }
        }
    }
};

// A block: 64 channels of v (blockIdx.z / tiles) by 64 of k~ (blockIdx.z % tiles) of head blockIdx.x over range blockIdx.y.
template <class T>
__global__ void __launch_bounds__(kThreads)
    linear_attention_state_kernel(const __grid_constant__ LinearAttentionProblem<T> p, TokenRanges ranges) {
    __shared__ __align__(16) float values[kDepth][kTile], turned[kDepth][kTile], plain[kDepth][kTile];
    int tiles = (p.width + kTile - 1) / kTile, sample = static_cast<int>(blockIdx.x) / p.heads,
        head = static_cast<int>(blockIdx.x) % p.heads;
    int i_start = static_cast<int>(blockIdx.z) / tiles * kTile,
        j_start = static_cast<int>(blockIdx.z) % tiles * kTile;
    int start = static_cast<int>(blockIdx.y) * ranges.length, end = min(p.tokens, start + ranges.length);
    const T* weight = p.k_weight + head * p.width;
    Sums sums;
    float k_sum = 0;
    for (int first = start; first < end; first += kDepth) {
        __syncthreads();
        for (int item = threadIdx.x; item < kDepth * kTile / 2; item += kThreads) {
            int d = item / (kTile / 2), pair = item % (kTile / 2), channel = j_start + 2 * pair,
                token = first + d;
            float2 k{0, 0}, turn{0, 0};
            if (token < end) {
                int64_t row = static_cast<int64_t>(sample) * p.tokens + token;
                k = feature_pair(p.k + row * p.k_stride + head * p.width, weight, p.k_scales[row], channel,
                                 p.width);
                if (channel < p.width) {
                    int64_t at = static_cast<int64_t>(token) * (p.width / 2) + channel / 2;
                    turn = rotated(k.x, k.y, p.cos[at], p.sin[at]);
                }
            }
            plain[d][2 * pair] = k.x;
            plain[d][2 * pair + 1] = k.y;
            turned[d][2 * pair] = turn.x;
            turned[d][2 * pair + 1] = turn.y;
        }
        for (int item = threadIdx.x; item < kDepth * kTile; item += kThreads) {
            int d = item / kTile, channel = i_start + item % kTile, token = first + d;
            int64_t row = static_cast<int64_t>(sample) * p.tokens + token;
            values[d][item % kTile] = token < end && channel < p.width
                                          ? to_float(p.v[row * p.v_stride + head * p.width + channel])
                                          : 0.0f;
        }
        __syncthreads();
        sums.add(values, turned);
        if (i_start == 0 && threadIdx.x < kTile) {
#pragma unroll
            for (int d = 0; d < kDepth; ++d) k_sum += plain[d][threadIdx.x];
        }
    }
    int64_t slot = static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x;
    float* kv = ranges.kv + slot * p.width * p.width;
#pragma unroll
    for (int a = 0; a < kSide; ++a) {
#pragma unroll
        for (int b = 0; b < kSide; ++b) {
            int i = i_start + static_cast<int>(threadIdx.x) / 16 * kSide + a,
                j = j_start + static_cast<int>(threadIdx.x) % 16 * kSide + b;
            if (i < p.width && j < p.width) kv[static_cast<int64_t>(i) * p.width + j] = sums.of[a][b];
        }
    }
    int j = j_start + static_cast<int>(threadIdx.x);
    if (i_start == 0 && threadIdx.x < kTile && j < p.width) ranges.k_sum[slot * p.width + j] = k_sum;
}

// total[i] = past[i] + the ranges' sums in order.
__global__ void linear_attention_reduce_kernel(const float* partial, int ranges, const float* past,
                                               float* total, int64_t count) {
    int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
    if (i >= count) return;
    float sum = 0;
    for (int r = 0; r < ranges; ++r) sum += partial[r * count + i];
    total[i] = past == nullptr ? sum : sum + past[i];
}

// A block: 64 tokens (blockIdx.x) by 64 channels of v (blockIdx.z) of head blockIdx.y.
template <class T>
__global__ void __launch_bounds__(kThreads)
    linear_attention_apply_kernel(const __grid_constant__ LinearAttentionProblem<T> p) {
    __shared__ __align__(16) float turned[kDepth][kTile], plain[kDepth][kTile], state[kDepth][kTile];
    __shared__ float inverse[kTile];
    int sample = static_cast<int>(blockIdx.y) / p.heads, head = static_cast<int>(blockIdx.y) % p.heads;
    int first = static_cast<int>(blockIdx.x) * kTile, i_start = static_cast<int>(blockIdx.z) * kTile;
    const T* weight = p.q_weight + head * p.width;
    const float* kv = p.kv + static_cast<int64_t>(blockIdx.y) * p.width * p.width;
    const float* k_sum = p.k_sum + static_cast<int64_t>(blockIdx.y) * p.width;
    Sums sums;
    float normaliser = 0;
    for (int j_start = 0; j_start < p.width; j_start += kDepth) {
        __syncthreads();
        for (int item = threadIdx.x; item < kDepth / 2 * kTile; item += kThreads) {
            int t = item / (kDepth / 2), pair = item % (kDepth / 2), channel = j_start + 2 * pair,
                token = first + t;
            float2 q{0, 0}, turn{0, 0};
            if (token < p.tokens && channel < p.width) {
                int64_t row = static_cast<int64_t>(sample) * p.tokens + token;
                q = feature_pair(p.q + row * p.q_stride + head * p.width, weight, p.q_scales[row], channel,
                                 p.width);
                int64_t at = static_cast<int64_t>(token) * (p.width / 2) + channel / 2;
                turn = rotated(q.x, q.y, p.cos[at], p.sin[at]);
            }
            plain[2 * pair][t] = q.x;
            plain[2 * pair + 1][t] = q.y;
            turned[2 * pair][t] = turn.x;
            turned[2 * pair + 1][t] = turn.y;
        }
        for (int item = threadIdx.x; item < kDepth * kTile; item += kThreads) {
            int d = item % kDepth, i = i_start + item / kDepth, j = j_start + d;
            state[d][item / kDepth] =
                i < p.width && j < p.width ? kv[static_cast<int64_t>(i) * p.width + j] : 0.0f;
        }
        __syncthreads();
        sums.add(turned, state);
        if (threadIdx.x < kTile) {
#pragma unroll
            for (int d = 0; d < kDepth; ++d) {
                if (j_start + d < p.width) normaliser += plain[d][threadIdx.x] * k_sum[j_start + d];
            }
        }
    }
    if (threadIdx.x < kTile) inverse[threadIdx.x] = 1 / (normaliser + p.eps);
    __syncthreads();
#pragma unroll
    for (int a = 0; a < kSide; ++a) {
        int t = static_cast<int>(threadIdx.x) / 16 * kSide + a;
        if (first + t >= p.tokens) break;
        int64_t row = static_cast<int64_t>(sample) * p.tokens + first + t;
        T* y = p.y + row * p.y_stride + head * p.width;
#pragma unroll
        for (int b = 0; b < kSide; ++b) {
            int i = i_start + static_cast<int>(threadIdx.x) % 16 * kSide + b;
            if (i < p.width) y[i] = from_float<T>(sums.of[a][b] * inverse[t]);
        }
    }
}

template <class T>
void plain(const LinearAttentionProblem<T>& p, Device device) {
    cudaStream_t stream = stream_of(device);
    unsigned heads = static_cast<unsigned>(p.samples * p.heads),
             tiles = static_cast<unsigned>((p.width + kTile - 1) / kTile);
    check(heads < 65536 && tiles * tiles < 65536, "linear_attention: ", heads, " heads of width ", p.width,
          " are more than the CUDA kernel's grid holds");
    // Enough blocks to fill a large card, but ranges of at least 256 tokens.
    int wanted = std::max(1, 512 / static_cast<int>(heads * tiles * tiles));
    int count = std::clamp((p.tokens + 255) / 256, 1, wanted), length = (p.tokens + count - 1) / count;
    int64_t sums = int64_t{heads} * p.width * p.width, k_sums = int64_t{heads} * p.width;
    Tensor kv = empty({count, sums}, DType::F32, device), k_sum = empty({count, k_sums}, DType::F32, device);
    TokenRanges ranges{count, length, pointer<float>(kv), pointer<float>(k_sum)};
    linear_attention_state_kernel<<<dim3(heads, static_cast<unsigned>(count), tiles * tiles), kThreads, 0,
                                    stream>>>(p, ranges);
    check_launch("linear_attention_state_kernel", device);
    auto reduce = [&](const float* partial, const float* past, float* total, int64_t n) {
        linear_attention_reduce_kernel<<<static_cast<unsigned>((n + kThreads - 1) / kThreads), kThreads, 0,
                                         stream>>>(partial, count, past, total, n);
        check_launch("linear_attention_reduce_kernel", device);
    };
    reduce(ranges.kv, p.past_kv, p.kv, sums);
    reduce(ranges.k_sum, p.past_k_sum, p.k_sum, k_sums);
    if (p.tokens == 0) return;
    dim3 grid(static_cast<unsigned>((p.tokens + kTile - 1) / kTile), heads, tiles);
    linear_attention_apply_kernel<<<grid, kThreads, 0, stream>>>(p);
    check_launch("linear_attention_apply_kernel", device);
}

}  // namespace

template <class T>
Tensor row_scales(const Tensor& q, const Tensor& k, float eps, unsigned tensors) {
    Tensor scales = empty({int64_t{tensors}, q.rows()}, DType::F32, q.device());
    int64_t rows = q.rows();
    auto launch = [&](auto kernel) {
        dim3 grid(static_cast<unsigned>((rows * 32 + kThreads - 1) / kThreads), tensors);
        kernel<<<grid, kThreads, 0, stream_of(q.device())>>>(pointer<T>(q), q.row_stride(), pointer<T>(k),
                                                             k.row_stride(), pointer<float>(scales), rows,
                                                             static_cast<int>(q.cols()), eps);
    };
    if (vectors_fit(q) && vectors_fit(k)) {
        launch(row_scales_kernel<T, kLanes<T>>);
    } else {
        launch(row_scales_kernel<T, 1>);
    }
    check_launch("row_scales_kernel", q.device());
    return scales;
}
template Tensor row_scales<bf16_t>(const Tensor&, const Tensor&, float, unsigned);

namespace {

// All but y and the rows' scales. Args: LinearAttentionArgs, or those to E4M3.
template <class T, class Args>
LinearAttentionProblem<T> problem_of(const Args& args) {
    const LinearAttentionOptions& o = args.options;
    int64_t batch = args.q.dim(0), tokens = args.q.dim(1), channels = args.q.dim(2);
    check(batch * o.heads < INT_MAX && tokens < INT_MAX / 2 && channels < INT_MAX / 2,
          "linear_attention: ", args.q, " is more than the CUDA kernel counts");
    LinearAttentionProblem<T> p{};
    p.q = pointer<T>(args.q);
    p.k = pointer<T>(args.k);
    p.v = pointer<T>(args.v);
    p.q_stride = args.q.row_stride();
    p.k_stride = args.k.row_stride();
    p.v_stride = args.v.row_stride();
    p.q_weight = pointer<T>(o.q_norm);
    p.k_weight = pointer<T>(o.k_norm);
    p.cos = pointer<float>(o.rope.cos);
    p.sin = pointer<float>(o.rope.sin);
    if (o.past != nullptr) {
        p.past_kv = pointer<float>(o.past->kv);
        p.past_k_sum = pointer<float>(o.past->k_sum);
    }
    p.kv = pointer<float>(args.kv);
    p.k_sum = pointer<float>(args.k_sum);
    p.samples = static_cast<int>(batch);
    p.tokens = static_cast<int>(tokens);
    p.heads = static_cast<int>(o.heads);
    p.width = static_cast<int>(channels / o.heads);
    p.eps = o.eps;
    return p;
}

bool by_codes(const LinearAttentionFp8Args& args) {
    if (args.q.dtype() != DType::BF16 || args.q.numel() == 0) return false;
    const LinearAttentionOptions& o = args.options;
    Device device = args.q.device();
    auto p = problem_of<bf16_t>(args);
    LinearAttentionCodes to{pointer<uint8_t>(args.y.codes), pointer<float>(args.y.scale), o.norm_eps};
    if (!linear_attention_makes_codes(p, device, to)) return false;
    Tensor scales = row_scales<bf16_t>(args.k, args.k, o.norm_eps, 1);
    p.k_scales = pointer<float>(scales);
    return linear_attention_by_mma(p, o.total != nullptr, device, to);
}

}  // namespace

void linear_attention(const LinearAttentionArgs& args) {
    Device device = args.q.device();
    dispatch_cuda("linear_attention", args.q.dtype(), [&]<class T>() {
        if (args.q.dim(0) == 0 || args.q.dim(2) == 0) return;
        auto p = problem_of<T>(args);
        p.y = pointer<T>(args.y);
        p.y_stride = args.y.row_stride();
        Tensor scales = p.tokens > 0 ? row_scales<T>(args.q, args.k, args.options.norm_eps, 2) : Tensor();
        p.q_scales = pointer<float>(scales);
        p.k_scales = p.q_scales + args.q.rows();
        if constexpr (sizeof(T) == 2) {
            if (linear_attention_by_mma(p, args.options.total != nullptr, device)) return;
        }
        plain(p, device);
    });
}

void linear_attention_fp8(const LinearAttentionFp8Args& args) {
    if (by_codes(args)) return;
    Tensor y = empty(args.q.shape(), args.q.dtype(), args.q.device());
    linear_attention({args.q, args.k, args.v, args.options, args.kv, args.k_sum, y});
    quantise({y, args.y});
}

}  // namespace sana::cuda
