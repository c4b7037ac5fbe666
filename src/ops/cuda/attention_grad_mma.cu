// The derivative of attention with tensor cores, for 16-bit types and heads of some widths: scores are never written out. With
// p the weights, f = scale, D_i = sum_j p_ij dy_i . v_j:
//   ds_ij = p_ij (dy_i . v_j - D_i) f,  dq_i = sum_j ds_ij k_j,  dk_j = sum_i ds_ij q_i,  dv_j = sum_i p_ij dy_i
// First a block for 64 queries of a head goes over the keys twice: for the largest score, the sum of weights and D; then for
// dq. Then a block for 64 keys of a head goes over its part of the queries for dk and dv, and the parts are added up, in
// order. A warp has 16 rows of a block's 64; weights become, register by register, operands of the next product.
#include "ops/cuda/device/attention_softmax.cuh"
#include "ops/cuda/device/derivative.cuh"
#include "ops/cuda/gradients.h"

namespace sana::cuda {

namespace {

constexpr int kRows = 64, kThreads = 128;

template <int W>
struct Shape {
    static constexpr int kPitch = W * 2 + 16, kTile = kRows * kPitch;
    // Two tiles that stay, two stages of two tiles, and two numbers a row for both stages.
    static constexpr int kBytes = 6 * kTile + 4 * kRows * 4;
};

template <class T>
struct Problem {
    const T *q, *k, *v, *dy;
    int64_t q_stride, k_stride, v_stride, dy_stride;  // elements
    const int32_t* mask;                              // [B,L] or null
    T* dq;                                            // [B,N,C]
    float *lse, *dots;                                // [B*A,N]: log2 of the sum of weights, D
    float *dk, *dv;                                   // [parts,B,L,C]
    int queries, keys, heads, samples;
    int tiles_per_part, parts;
    float scale;
};

template <int W>
using Sums = float[W / 8][4];
using Weights = float[kRows / 8][4];

// 16 rows x 64 rows, over W columns.
template <class T, int W>
__device__ __forceinline__ void multiply_rows(Weights& out, uint32_t a_lane, uint32_t b_lane) {
#pragma unroll
    for (int n = 0; n < kRows / 8; ++n) out[n][0] = out[n][1] = out[n][2] = out[n][3] = 0;
#pragma unroll
    for (int d = 0; d < W / 16; ++d) {
        uint32_t a[4];
        load_matrices(a, a_lane + d * 32);
#pragma unroll
        for (int n = 0; n < kRows / 16; ++n) {
            uint32_t b[4];
            load_matrices(b, b_lane + n * 16 * Shape<W>::kPitch + d * 32);
            mma<T>(out[2 * n], a, b[0], b[1]);
            mma<T>(out[2 * n + 1], a, b[2], b[3]);
        }
    }
}

// out[16,W] += weights[16,64] rows[64,W]
template <class T, int W>
__device__ __forceinline__ void add_product(Sums<W>& out, const Weights& weights, uint32_t rows_lane) {
#pragma unroll
    for (int n = 0; n < kRows / 16; ++n) {
        uint32_t a[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float(&w)[4] = weights[2 * n + i / 2];
            a[i] = pack<T>(w[i % 2 * 2], w[i % 2 * 2 + 1]);
        }
#pragma unroll
        for (int d = 0; d < W / 16; ++d) {
            uint32_t b[4];
            load_matrices_transposed(b, rows_lane + n * 16 * Shape<W>::kPitch + d * 32);
            mma<T>(out[2 * d], a, b[0], b[1]);
            mma<T>(out[2 * d + 1], a, b[2], b[3]);
        }
    }
}

// Where a lane's rows begin in matrix loads: of the left operand, of a transposed right one, of a right one.
template <int W>
struct Lanes {
    int left, right, turned;
    __device__ Lanes() {
        constexpr int kPitch = Shape<W>::kPitch;
        int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
        left = (warp * 16 + lane % 16) * kPitch + lane / 16 * 16;
        right = (lane / 16 * 8 + lane % 8) * kPitch + lane / 8 % 2 * 16;
        turned = lane % 16 * kPitch + lane / 16 * 16;
    }
};

__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

template <class T, int W>
__global__ void __launch_bounds__(kThreads, 2)
    attention_rows_grad_kernel(const __grid_constant__ Problem<T> p) {
    using S = Shape<W>;
    extern __shared__ __align__(16) uint8_t shared[];
    uint32_t q_tile = static_cast<uint32_t>(__cvta_generic_to_shared(shared)), dy_tile = q_tile + S::kTile,
             stages = dy_tile + S::kTile;
    int* counts = reinterpret_cast<int*>(shared + 6 * S::kTile);  // [2][64]: whether a key does
    int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    int b = static_cast<int>(blockIdx.y) / p.heads, head = static_cast<int>(blockIdx.y) % p.heads;
    int start = static_cast<int>(blockIdx.x) * kRows, last = min(kRows, p.queries - start) - 1;
    int64_t first_query = static_cast<int64_t>(b) * p.queries + start,
            first_key = static_cast<int64_t>(b) * p.keys;
    const T* k = p.k + first_key * p.k_stride + head * W;
    const T* v = p.v + first_key * p.v_stride + head * W;
    RowCopy<W / 8, S::kPitch, kThreads> part;
    part.template copy<kRows>(q_tile, p.q + first_query * p.q_stride + head * W, p.q_stride * 2, last);
    part.template copy<kRows>(dy_tile, p.dy + first_query * p.dy_stride + head * W, p.dy_stride * 2, last);
    int tiles = (p.keys + kRows - 1) / kRows;
    auto copy_keys = [&](int tile, int stage) {
        int first = tile * kRows, end = min(kRows, p.keys - first) - 1;
        uint32_t to = stages + stage * 2 * S::kTile;
        part.template copy<kRows>(to, k + first * p.k_stride, p.k_stride * 2, end);
        part.template copy<kRows>(to + S::kTile, v + first * p.v_stride, p.v_stride * 2, end);
        int key = static_cast<int>(threadIdx.x);
        if (key < kRows) {
            bool there = first + key < p.keys && (p.mask == nullptr || p.mask[first_key + first + key] != 0);
            counts[stage * kRows + key] = there ? 1 : 0;
        }
    };
    copy_keys(0, 0);

    Lanes<W> lanes;
    float factor = p.scale * kLog2E;
    float best[2] = {-INFINITY, -INFINITY}, sum[2] = {}, dot[2] = {}, lse[2] = {};
    Sums<W> dq = {};
#pragma unroll 1
    for (int i = 0; i < 2 * tiles; ++i) {
        int stage = i % 2;
        copy_wait();
        __syncthreads();  // this tile is there for all, and all are done with the one that is overwritten now
        if (i + 1 < 2 * tiles) copy_keys((i + 1) % tiles, 1 - stage);
        uint32_t k_tile = stages + stage * 2 * S::kTile, v_tile = k_tile + S::kTile;
        Weights scores, slopes;
        multiply_rows<T, W>(scores, q_tile + lanes.left, k_tile + lanes.right);
        multiply_rows<T, W>(slopes, dy_tile + lanes.left, v_tile + lanes.right);
        const int* here = counts + stage * kRows + 2 * (lane % 4);
#pragma unroll
        for (int n = 0; n < kRows / 8; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e)
                scores[n][e] = here[n * 8 + e % 2] != 0 ? scores[n][e] * factor : -INFINITY;
        }
        if (i < tiles) {
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                float most = best[r];
#pragma unroll
                for (int n = 0; n < kRows / 8; ++n)
                    most = fmaxf(most, fmaxf(scores[n][2 * r], scores[n][2 * r + 1]));
                most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
                most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
                if (most == -INFINITY) continue;
                float rescale = exp2_fast(best[r] - most);
                sum[r] *= rescale;
                dot[r] *= rescale;
                best[r] = most;
#pragma unroll
                for (int n = 0; n < kRows / 8; ++n) {
#pragma unroll
                    for (int e = 2 * r; e < 2 * r + 2; ++e) {
                        float weight = exp2_fast(scores[n][e] - most);
                        sum[r] += weight;
                        dot[r] += weight * slopes[n][e];
                    }
                }
            }
            if (i + 1 < tiles) continue;
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                sum[r] = quad_sum(sum[r]);
                dot[r] = quad_sum(dot[r]);
                // Without any key nothing gets a weight.
                lse[r] = sum[r] > 0 ? best[r] + log2f(sum[r]) : INFINITY;
                dot[r] = sum[r] > 0 ? dot[r] / sum[r] : 0.0f;
                int row = warp * 16 + lane / 4 + 8 * r;
                if (lane % 4 == 0 && row <= last) {
                    int64_t at = static_cast<int64_t>(blockIdx.y) * p.queries + start + row;
                    p.lse[at] = lse[r];
                    p.dots[at] = dot[r];
                }
            }
            continue;
        }
#pragma unroll
        for (int n = 0; n < kRows / 8; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e)
                scores[n][e] = exp2_fast(scores[n][e] - lse[e / 2]) * (slopes[n][e] - dot[e / 2]) * p.scale;
        }
        add_product<T, W>(dq, scores, k_tile + lanes.turned);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        int row = warp * 16 + lane / 4 + 8 * r;
        if (row > last) continue;
        T* to = p.dq + (first_query + row) * p.heads * W + head * W + 2 * (lane % 4);
#pragma unroll
        for (int n = 0; n < W / 8; ++n)
            *reinterpret_cast<uint32_t*>(to + n * 8) = pack<T>(dq[n][2 * r], dq[n][2 * r + 1]);
    }
}

template <class T, int W>
__global__ void __launch_bounds__(kThreads, 2)
    attention_keys_grad_kernel(const __grid_constant__ Problem<T> p) {
    using S = Shape<W>;
    extern __shared__ __align__(16) uint8_t shared[];
    uint32_t k_tile = static_cast<uint32_t>(__cvta_generic_to_shared(shared)), v_tile = k_tile + S::kTile,
             stages = v_tile + S::kTile;
    float* numbers = reinterpret_cast<float*>(shared + 6 * S::kTile);  // [2][2][64]: lse and D of the queries
    int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    int b = static_cast<int>(blockIdx.y) / p.heads, head = static_cast<int>(blockIdx.y) % p.heads;
    int key_tiles = (p.keys + kRows - 1) / kRows, first = static_cast<int>(blockIdx.x) % key_tiles * kRows,
        index = static_cast<int>(blockIdx.x) / key_tiles;
    int64_t first_query = static_cast<int64_t>(b) * p.queries, first_key = static_cast<int64_t>(b) * p.keys;
    RowCopy<W / 8, S::kPitch, kThreads> part;
    int end = min(kRows, p.keys - first) - 1;
    part.template copy<kRows>(k_tile, p.k + (first_key + first) * p.k_stride + head * W, p.k_stride * 2, end);
    part.template copy<kRows>(v_tile, p.v + (first_key + first) * p.v_stride + head * W, p.v_stride * 2, end);
    int tile = index * p.tiles_per_part,
        last_tile = min(tile + p.tiles_per_part, (p.queries + kRows - 1) / kRows);
    auto copy_queries = [&](int t, int stage) {
        int start = t * kRows, last = min(kRows, p.queries - start) - 1;
        uint32_t to = stages + stage * 2 * S::kTile;
        part.template copy<kRows>(to, p.q + (first_query + start) * p.q_stride + head * W, p.q_stride * 2,
                                  last);
        part.template copy<kRows>(to + S::kTile, p.dy + (first_query + start) * p.dy_stride + head * W,
                                  p.dy_stride * 2, last);
        int row = static_cast<int>(threadIdx.x);
        if (row < kRows) {
            int64_t at = static_cast<int64_t>(blockIdx.y) * p.queries + start + min(row, last);
            numbers[stage * 2 * kRows + row] = row <= last ? p.lse[at] : INFINITY;
            numbers[(stage * 2 + 1) * kRows + row] = p.dots[at];
        }
    };
    if (tile < last_tile) copy_queries(tile, 0);
    bool counts[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        int key = first + warp * 16 + lane / 4 + 8 * r;
        counts[r] = key < p.keys && (p.mask == nullptr || p.mask[first_key + key] != 0);
    }

    Lanes<W> lanes;
    float factor = p.scale * kLog2E;
    Sums<W> dk = {}, dv = {};
#pragma unroll 1
    for (int stage = 0; tile < last_tile; ++tile, stage = 1 - stage) {
        copy_wait();
        __syncthreads();
        if (tile + 1 < last_tile) copy_queries(tile + 1, 1 - stage);
        uint32_t q_tile = stages + stage * 2 * S::kTile, dy_tile = q_tile + S::kTile;
        const float* lse = numbers + stage * 2 * kRows + 2 * (lane % 4);
        const float* dots = lse + kRows;
        Weights weights, slopes;
        multiply_rows<T, W>(weights, k_tile + lanes.left, q_tile + lanes.right);
        multiply_rows<T, W>(slopes, v_tile + lanes.left, dy_tile + lanes.right);
#pragma unroll
        for (int n = 0; n < kRows / 8; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                int query = n * 8 + e % 2;
                float weight = counts[e / 2] ? exp2_fast(weights[n][e] * factor - lse[query]) : 0.0f;
                weights[n][e] = weight;
                slopes[n][e] = weight * (slopes[n][e] - dots[query]) * p.scale;
            }
        }
        add_product<T, W>(dv, weights, dy_tile + lanes.turned);
        add_product<T, W>(dk, slopes, q_tile + lanes.turned);
    }
    copy_wait();
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        int key = first + warp * 16 + lane / 4 + 8 * r;
        if (key >= p.keys) continue;
        int64_t row = (static_cast<int64_t>(index) * p.samples + b) * p.keys + key,
                at = row * p.heads * W + head * W + 2 * (lane % 4);
#pragma unroll
        for (int n = 0; n < W / 8; ++n) {
            *reinterpret_cast<float2*>(p.dk + at + n * 8) = make_float2(dk[n][2 * r], dk[n][2 * r + 1]);
            *reinterpret_cast<float2*>(p.dv + at + n * 8) = make_float2(dv[n][2 * r], dv[n][2 * r + 1]);
        }
    }
}

template <class T, int W>
void run(const AttentionGradArgs& args) {
    using S = Shape<W>;
    auto number = [](int64_t n) { return static_cast<int>(n); };
    Device device = args.q.device();
    int64_t batch = args.q.dim(0), count = batch * args.options.heads;
    Problem<T> p{};
    p.q = pointer<T>(args.q);
    p.k = pointer<T>(args.k);
    p.v = pointer<T>(args.v);
    p.dy = pointer<T>(args.dy);
    p.q_stride = args.q.row_stride();
    p.k_stride = args.k.row_stride();
    p.v_stride = args.v.row_stride();
    p.dy_stride = args.dy.row_stride();
    p.mask = args.mask.defined() ? pointer<int32_t>(args.mask) : nullptr;
    p.dq = pointer<T>(args.dq);
    p.queries = number(args.q.dim(1));
    p.keys = number(args.k.dim(1));
    p.heads = number(args.options.heads);
    p.samples = number(batch);
    p.scale = args.options.scale;
    int query_tiles = (p.queries + kRows - 1) / kRows, key_tiles = (p.keys + kRows - 1) / kRows;
    // Two blocks fit a multiprocessor: a few rounds of them.
    p.parts = number(std::clamp<int64_t>(132 * 6 / (count * key_tiles), 1, query_tiles));
    p.tiles_per_part = (query_tiles + p.parts - 1) / p.parts;
    p.parts = (query_tiles + p.tiles_per_part - 1) / p.tiles_per_part;
    Tensor numbers = empty({2, count, args.q.dim(1)}, DType::F32, device);
    p.lse = pointer<float>(numbers);
    p.dots = p.lse + count * p.queries;
    Tensor partial = empty({2, p.parts, args.dk.numel()}, DType::F32, device);
    p.dk = pointer<float>(partial);
    p.dv = p.dk + p.parts * args.dk.numel();
    cudaStream_t stream = stream_of(device);
    auto start = [&](auto kernel, int blocks) {
        CHECK_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes));
        kernel<<<dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(count)), kThreads, S::kBytes,
                 stream>>>(p);
        check_launch("attention", device);
    };
    start(attention_rows_grad_kernel<T, W>, query_tiles);
    start(attention_keys_grad_kernel<T, W>, key_tiles * p.parts);
    auto finish = [&](int64_t which, const Tensor& y) {
        Tensor flat = y.reshape({1, y.numel()});
        sum_parts(partial.select(which), p.parts, flat);
    };
    finish(0, args.dk);
    finish(1, args.dv);
}

}  // namespace

bool attention_grad_by_mma(const AttentionGradArgs& args) {
    const AttentionOptions& o = args.options;
    int64_t width = args.q.dim(2) / o.heads;
    bool plain = o.soft_cap == 0 && !o.causal && o.window == 0 && o.kv_heads == o.heads && o.scale > 0;
    bool fits = size_of(args.q.dtype()) == 2 && args.q.dim(0) * o.heads <= 65535;
    for (const Tensor* x : {&args.q, &args.k, &args.v, &args.dy}) fits = fits && vectors_fit(*x);
    if (!plain || !fits) return false;
    auto by_type = [&]<int W>() {
        args.q.dtype() == DType::BF16 ? run<bf16_t, W>(args) : run<f16_t, W>(args);
        return true;
    };
    switch (width) {
        case 32: return by_type.template operator()<32>();
        case 64: return by_type.template operator()<64>();
        case 112: return by_type.template operator()<112>();
        default: return false;
    }
}

}  // namespace sana::cuda
