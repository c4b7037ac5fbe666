// attention: 16-bit types whose rows are aligned go to the tensor cores (attention_mma.cu). Everything else, fp32 first of
// all, is computed here in plain fp32 arithmetic.
// Mapping: a block has 32 queries of one head, a warp four of them. Keys come in tiles of 32, one a lane: q and k pass
// through shared memory in pieces of 32 columns, v in pieces of 128, where a lane has four columns of every piece.
// FLOPs 4*B*A*N*L*D. Every piece is read from shared memory for four queries at once: 5 vectors for 16 multiply-adds.
#include "ops/attention.h"

#include <climits>

#include "ops/cuda/cuda.h"
#include "ops/cuda/device/attention.cuh"

namespace sana::cuda {

namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32, kPerWarp = 4, kQueries = kWarps * kPerWarp;
constexpr int kKeys = 32;           // a lane each
constexpr int kPiece = 32;          // columns of q and k in shared memory
constexpr int kPitch = kPiece + 4;  // eight lanes that read a vector each hit all banks once
constexpr int kColumns = 128;       // columns of v in shared memory
constexpr int kMaxWidth = 1024;

// Lists the keys that each sample's mask keeps: a block a sample, 1024 keys at a time, counted by votes.
__global__ void __launch_bounds__(1024)
    keep_kernel(const int32_t* mask, int64_t stride, int keys, int32_t* kept) {
    __shared__ int totals[32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, count = 0;
    mask += blockIdx.x * stride;
    kept += blockIdx.x * (static_cast<int64_t>(keys) + 1);
    for (int start = 0; start < keys; start += 1024) {
        int key = start + static_cast<int>(threadIdx.x);
        bool keep = key < keys && mask[key] != 0;
        unsigned votes = __ballot_sync(0xffffffffu, keep);
        __syncthreads();  // the last round's totals may still be read
        if (lane == 0) totals[warp] = __popc(votes);
        __syncthreads();
        int slot = count + __popc(votes & ((1u << lane) - 1));
        for (int w = 0; w < 32; ++w) {
            if (w < warp) slot += totals[w];
            count += totals[w];
        }
        if (keep) kept[1 + slot] = key;
    }
    if (threadIdx.x == 0) kept[0] = count;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}

__device__ __forceinline__ void multiply_add(float (&sums)[4], float factor, float4 x) {
    sums[0] = fmaf(factor, x.x, sums[0]);
    sums[1] = fmaf(factor, x.y, sums[1]);
    sums[2] = fmaf(factor, x.z, sums[2]);
    sums[3] = fmaf(factor, x.w, sums[3]);
}

// Pieces: D / kColumns, rounded up.
template <class T, int Pieces>
__global__ void __launch_bounds__(kThreads) attention_kernel(const __grid_constant__ AttentionProblem<T> p) {
    __shared__ __align__(16) float q_piece[kQueries][kPitch], k_piece[kKeys][kPitch],
        v_piece[kKeys][kColumns];
    __shared__ __align__(16) float weights[kWarps][kKeys][kPerWarp];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    QueryTile tile = query_tile(p.queries, kQueries, p.heads);
    int end = min(p.queries, tile.start + kQueries);
    KeySlots slots = key_slots(p, tile.sample, tile.start, end);
    int64_t from = static_cast<int64_t>(tile.head) * p.width,
            to = static_cast<int64_t>(tile.head / p.share) * p.width;
    int64_t first_query = static_cast<int64_t>(tile.sample) * p.queries,
            first_key = static_cast<int64_t>(tile.sample) * p.keys;
    float best[kPerWarp], sum[kPerWarp] = {}, out[kPerWarp][Pieces][4] = {};
#pragma unroll
    for (int r = 0; r < kPerWarp; ++r) best[r] = -INFINITY;

    for (int start = slots.first; start < slots.last; start += kKeys) {
        float score[kPerWarp] = {};
        for (int d0 = 0; d0 < p.width; d0 += kPiece) {
            __syncthreads();
            for (int i = threadIdx.x; i < kKeys * kPiece; i += kThreads) {
                int row = i / kPiece, d = d0 + i % kPiece, query = tile.start + row, slot = start + row;
                bool inside = d < p.width;
                q_piece[row][i % kPiece] = inside && query < end
                                               ? to_float(p.q[(first_query + query) * p.q_stride + from + d])
                                               : 0.0f;
                k_piece[row][i % kPiece] =
                    inside && slot < slots.last
                        ? to_float(p.k[(first_key + slots.position(slot)) * p.k_stride + to + d])
                        : 0.0f;
            }
            __syncthreads();
#pragma unroll
            for (int d = 0; d < kPiece; d += 4) {
                float4 key = *reinterpret_cast<const float4*>(&k_piece[lane][d]);
#pragma unroll
                for (int r = 0; r < kPerWarp; ++r) {
                    float4 query = *reinterpret_cast<const float4*>(&q_piece[warp * kPerWarp + r][d]);
                    score[r] = fmaf(query.x, key.x, score[r]);
                    score[r] = fmaf(query.y, key.y, score[r]);
                    score[r] = fmaf(query.z, key.z, score[r]);
                    score[r] = fmaf(query.w, key.w, score[r]);
                }
            }
        }
        int slot = start + lane;
        bool exists = slot < slots.last;
        int position = exists ? slots.position(slot) : 0;
#pragma unroll
        for (int r = 0; r < kPerWarp; ++r) {
            float s = score[r] * p.scale;
            if (p.cap > 0) s = p.cap * tanhf(s / p.cap);
            if (!exists || !p.sees(tile.start + warp * kPerWarp + r, position)) s = -INFINITY;
            float grown = fmaxf(best[r], warp_max(s));
            float origin = grown == -INFINITY ? 0.0f : grown;  // no key yet: -inf - -inf would be NaN
            float shrink = expf(best[r] - origin), weight = expf(s - origin);
            best[r] = grown;
            sum[r] = sum[r] * shrink + weight;
            weights[warp][lane][r] = weight;
#pragma unroll
            for (int c = 0; c < Pieces; ++c) {
#pragma unroll
                for (int v = 0; v < 4; ++v) out[r][c][v] *= shrink;
            }
        }
#pragma unroll
        for (int c = 0; c < Pieces; ++c) {
            if (c * kColumns >= p.width) break;
            __syncthreads();
            for (int i = threadIdx.x; i < kKeys * kColumns; i += kThreads) {
                int row = i / kColumns, d = c * kColumns + i % kColumns;
                v_piece[row][i % kColumns] =
                    d < p.width && start + row < slots.last
                        ? to_float(p.v[(first_key + slots.position(start + row)) * p.v_stride + to + d])
                        : 0.0f;
            }
            __syncthreads();
#pragma unroll 8
            for (int j = 0; j < kKeys; ++j) {
                float4 weight = *reinterpret_cast<const float4*>(weights[warp][j]);
                float4 x = *reinterpret_cast<const float4*>(&v_piece[j][lane * 4]);
                multiply_add(out[0][c], weight.x, x);
                multiply_add(out[1][c], weight.y, x);
                multiply_add(out[2][c], weight.z, x);
                multiply_add(out[3][c], weight.w, x);
            }
        }
    }

#pragma unroll
    for (int r = 0; r < kPerWarp; ++r) {
        float total = warp_sum(sum[r]), inverse = total == 0 ? 0.0f : 1 / total;
        int query = tile.start + warp * kPerWarp + r;
        if (query >= end) continue;
        T* y = p.y + (first_query + query) * p.y_stride + from;
#pragma unroll
        for (int c = 0; c < Pieces; ++c) {
#pragma unroll
            for (int v = 0; v < 4; ++v) {
                int d = c * kColumns + lane * 4 + v;
                if (d < p.width) y[d] = from_float<T>(out[r][c][v] * inverse);
            }
        }
    }
}

template <class T, int Pieces>
void launch_plain(const AttentionProblem<T>& p, int64_t batch, Device device) {
    attention_kernel<T, Pieces><<<query_blocks(p, batch, kQueries), kThreads, 0, stream_of(device)>>>(p);
    check_launch("attention_kernel", device);
}

template <class T>
void plain(const AttentionProblem<T>& p, int64_t batch, Device device) {
    if (p.width <= kColumns) return launch_plain<T, 1>(p, batch, device);
    if (p.width <= 3 * kColumns) return launch_plain<T, 3>(p, batch, device);
    check(p.width <= kMaxWidth, "attention: heads of ", p.width,
          " columns are wider than the CUDA kernel's limit of ", kMaxWidth);
    launch_plain<T, kMaxWidth / kColumns>(p, batch, device);
}

Tensor list_kept(const Tensor& mask) {
    int64_t batch = mask.dim(0), keys = mask.dim(1);
    Tensor kept = empty({batch, 1 + keys}, DType::I32, mask.device());
    keep_kernel<<<static_cast<unsigned>(batch), 1024, 0, stream_of(mask.device())>>>(
        pointer<int32_t>(mask), mask.row_stride(), static_cast<int>(keys), pointer<int32_t>(kept));
    check_launch("keep_kernel", mask.device());
    return kept;
}

}  // namespace

void attention(const AttentionArgs& args) {
    const AttentionOptions& o = args.options;
    if (args.y.numel() == 0) return;
    int64_t batch = args.q.dim(0), queries = args.q.dim(1), keys = args.k.dim(1);
    Device device = args.q.device();
    check(queries < INT_MAX / 2 && keys < INT_MAX / 2, "attention: ", queries, " queries and ", keys,
          " keys are more than the CUDA kernel counts");
    Tensor kept = args.mask.defined() ? list_kept(args.mask) : Tensor();
    dispatch_cuda("attention", args.q.dtype(), [&]<class T>() {
        AttentionProblem<T> p{.q = pointer<T>(args.q),
                              .k = pointer<T>(args.k),
                              .v = pointer<T>(args.v),
                              .y = pointer<T>(args.y),
                              .q_stride = args.q.row_stride(),
                              .k_stride = args.k.row_stride(),
                              .v_stride = args.v.row_stride(),
                              .y_stride = args.y.row_stride(),
                              .kept = pointer<int32_t>(kept),
                              .queries = static_cast<int>(queries),
                              .keys = static_cast<int>(keys),
                              .heads = static_cast<int>(o.heads),
                              .share = static_cast<int>(o.heads / o.kv_heads),
                              .width = static_cast<int>(args.q.dim(2) / o.heads),
                              .scale = o.scale,
                              .cap = o.soft_cap,
                              .window = static_cast<int>(std::clamp<int64_t>(o.window, 0, INT_MAX)),
                              .causal = o.causal};
        if constexpr (std::is_same_v<T, bf16_t>) {
            if (attention_by_wgmma(p, batch, device)) return;
        }
        if constexpr (sizeof(T) == 2) {
            if (attention_by_mma(p, batch, device)) return;
        }
        plain(p, batch, device);
    });
}

}  // namespace sana::cuda
