// The attention kernel for tensor cores: fp32 scores, softmax and sums, one rounding at the end. For their product with v
// weights become fp16, whose 11 bits are an eighth of the rounding of a bf16 result; v of bf16 goes into fp16 without loss,
// scaled by a power of two a head. For fp16 results weights are split into two terms, half as many products again.
// Mapping: a block has 16 * Blocks16 * Warps queries of one head, a warp 16 or 32 of them for the whole width of the head.
// q stays in shared memory; k and v come in tiles of Keys keys, the next one being copied while this one is multiplied.
// Rows in shared memory are padded by 16 bytes, so that the 8 rows of a matrix load lie in different banks. A warp's
// scores become, register by register, the A operand of the product with v.
// Bytes: q and y once; k and v once for every tile of queries, from L2. FLOPs 4*B*A*N*L*D (6 for fp16). Per 16
// keys a warp reads 64 * D bytes of k and v from shared memory for 1024 * Blocks16 * D FLOPs: with 16 queries a warp
// shared memory is the limit, with 32 the tensor cores are; wide heads have only registers for 16.
// H100 80GB, 2026-11-24, bf16, B2 N32760 L300 A20 D112: 0.56 ms. Scores of the next tile of 32 keys multiplied while this
// one's become weights: 0.61 ms.
#include <bit>

#include "ops/cuda/device/attention_softmax.cuh"

namespace sana::cuda {

namespace {

// This thread's part in copying rows to shared memory: one vector of every kStep-th row, from row `row` on. Its column is
// fixed, so that a copy costs few instructions; where a row is not a power of two long, some threads have none.
template <class S>
struct CopyPart {
    static constexpr int kVectors = S::kWidth / 8,
                         kSpan = static_cast<int>(std::bit_ceil(unsigned{kVectors})),
                         kStep = S::kThreads / kSpan;
    int row, vector;
    bool used, filled;  // whether there is a vector; whether it holds data, not zeros
    uint32_t to;        // bytes behind the first row

    __device__ explicit CopyPart(int width)
        : row(threadIdx.x / kSpan),
          vector(threadIdx.x % kSpan),
          used(vector < kVectors),
          filled(vector * 8 < width),
          to(row * S::kPitch + vector * 16) {}

    // row_of(r) is the row in memory that becomes row r, or -1 for zeros; `from` is the first row's first column.
    template <int Count, class T, int Tensors, class RowOf>
    __device__ void copy(const uint32_t (&tiles)[Tensors], const T* const (&from)[Tensors],
                         const int (&stride)[Tensors], RowOf row_of) const {
        static_assert(Count % kStep == 0);
        if (!used) return;
        int rows[Count / kStep];  // all of them first: they may come from memory
#pragma unroll
        for (int i = 0; i < Count / kStep; ++i) rows[i] = row_of(row + i * kStep);
#pragma unroll
        for (int i = 0; i < Count / kStep; ++i) {
            bool there = filled && rows[i] >= 0;
#pragma unroll
            for (int t = 0; t < Tensors; ++t) {
                const T* source = from[t] + vector * 8 + static_cast<int64_t>(max(rows[i], 0)) * stride[t];
                copy_async(tiles[t] + to + i * kStep * S::kPitch, source, there);
            }
        }
    }
};

template <class T, class S>
__device__ __forceinline__ void multiply_keys(Scores<S>& scores, uint32_t q, uint32_t k) {
#pragma unroll(S::kWidth <= 128 ? S::kWidth / 16 : 4)
    for (int d = 0; d < S::kWidth / 16; ++d) {
        uint32_t a[S::kBlocks][4];
#pragma unroll
        for (int m = 0; m < S::kBlocks; ++m) load_matrices(a[m], q + m * 16 * S::kPitch + d * 32);
#pragma unroll
        for (int n = 0; n < S::kKeys / 16; ++n) {
            uint32_t b[4];
            load_matrices(b, k + n * 16 * S::kPitch + d * 32);
#pragma unroll
            for (int m = 0; m < S::kBlocks; ++m) {
                mma<T>(scores[m][2 * n], a[m], b[0], b[1]);
                mma<T>(scores[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

template <class T>
constexpr int kWeightTerms = std::is_same_v<T, bf16_t> ? 1 : 2;

template <class T, class S>
__device__ __forceinline__ void multiply_values(QueryRows<S>& rows, const Scores<S>& weights, uint32_t v) {
#pragma unroll
    for (int n = 0; n < S::kKeys / 16; ++n) {
        uint32_t terms[kWeightTerms<T>][S::kBlocks][4];
#pragma unroll
        for (int m = 0; m < S::kBlocks; ++m) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float(&w)[4] = weights[m][2 * n + i / 2];
                uint32_t parts[kWeightTerms<T>];
                split_terms<f16_t>(make_float2(w[i % 2 * 2], w[i % 2 * 2 + 1]), parts);
#pragma unroll
                for (int t = 0; t < kWeightTerms<T>; ++t) terms[t][m][i] = parts[t];
            }
        }
#pragma unroll
        for (int d = 0; d < S::kWidth / 16; ++d) {
            uint32_t b[4];
            load_matrices_transposed(b, v + n * 16 * S::kPitch + d * 32);
#pragma unroll
            for (int m = 0; m < S::kBlocks; ++m) {
#pragma unroll
                for (int t = 0; t < kWeightTerms<T>; ++t) {
                    mma<f16_t>(rows.out[m][2 * d], terms[t][m], b[0], b[1]);
                    mma<f16_t>(rows.out[m][2 * d + 1], terms[t][m], b[2], b[3]);
                }
            }
        }
    }
}

// y = out / sum * unscale, through the warp's rows of q in shared memory, so that it is written in 16-byte vectors.
template <class T, class S>
__device__ __forceinline__ void write_rows(const QueryRows<S>& rows, uint8_t* shared, T* y, int64_t stride,
                                           int count, int width, float unscale) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < 2 * S::kBlocks; ++r) {
        float total = rows.sum[r];
        total += __shfl_xor_sync(0xffffffffu, total, 1);
        total += __shfl_xor_sync(0xffffffffu, total, 2);
        float inverse = total == 0 ? 0.0f : unscale / total;
        uint8_t* to = shared + (r * 8 + lane / 4) * S::kPitch + lane % 4 * 4;
#pragma unroll
        for (int d = 0; d < S::kWidth / 8; ++d) {
            const float(&v)[4] = rows.out[r / 2][d];
            *reinterpret_cast<uint32_t*>(to + d * 16) =
                pack<T>(v[r % 2 * 2] * inverse, v[r % 2 * 2 + 1] * inverse);
        }
    }
    __syncwarp();
    constexpr int kVectors = S::kWidth / 8;
#pragma unroll 4
    for (int i = lane; i < S::kWarpRows * kVectors; i += 32) {
        int row = i / kVectors, vector = i % kVectors;
        if (row < count && vector * 8 < width) {
            *reinterpret_cast<uint4*>(y + row * stride + vector * 8) =
                *reinterpret_cast<const uint4*>(shared + row * S::kPitch + vector * 16);
        }
    }
}

template <class T, class S>
__global__ void __launch_bounds__(S::kThreads, S::kResidents)
    attention_mma_kernel(const __grid_constant__ AttentionProblem<T> p) {
    extern __shared__ __align__(16) uint8_t shared[];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    QueryTile tile = query_tile(p.queries, S::kRows, p.heads);
    int end = min(p.queries, tile.start + S::kRows);
    KeySlots slots = key_slots(p, tile.sample, tile.start, end);
    int64_t first_query = static_cast<int64_t>(tile.sample) * p.queries + tile.start,
            first_key = static_cast<int64_t>(tile.sample) * p.keys;
    const T* q = p.q + first_query * p.q_stride + static_cast<int64_t>(tile.head) * p.width;
    const T* k = p.k + first_key * p.k_stride + static_cast<int64_t>(tile.head / p.share) * p.width;
    const T* v = p.v + first_key * p.v_stride + static_cast<int64_t>(tile.head / p.share) * p.width;

    uint32_t q_tile = static_cast<uint32_t>(__cvta_generic_to_shared(shared)),
             stages = q_tile + S::kRows * S::kPitch;
    CopyPart<S> part(p.width);
    int q_stride = static_cast<int>(p.q_stride), k_stride = static_cast<int>(p.k_stride),
        v_stride = static_cast<int>(p.v_stride);
    auto copy_keys = [&](int start, uint32_t stage) {
        part.template copy<S::kKeys, T, 2>(
            {stage, stage + S::kTile}, {k, v}, {k_stride, v_stride},
            [&](int row) { return start + row < slots.last ? slots.position(start + row) : -1; });
    };
    part.template copy<S::kRows, T, 1>({q_tile}, {q}, {q_stride},
                                       [&](int row) { return tile.start + row < end ? row : -1; });
    if (slots.first < slots.last) copy_keys(slots.first, stages);

    // A lane's row and vector in matrix loads: of q and v 16 rows, then the next 8 columns; of k 8 keys, their next 8
    // columns, then 8 more keys.
    uint32_t q_lane = q_tile + (warp * S::kWarpRows + lane % 16) * S::kPitch + lane / 16 * 16;
    uint32_t k_lane = (lane / 16 * 8 + lane % 8) * S::kPitch + lane / 8 % 2 * 16;
    uint32_t v_lane = S::kTile + lane % 16 * S::kPitch + lane / 16 * 16;
    // Scores and their largest are kept as they come from the product; the factor turns them into exponents of 2.
    float factor = p.cap > 0 ? kLog2E : p.scale * kLog2E;
    QueryRows<S> rows{};
#pragma unroll
    for (int r = 0; r < 2 * S::kBlocks; ++r) rows.best[r] = -INFINITY;

    uint32_t stage = stages, other = stages + 2 * S::kTile;
#pragma unroll 1
    for (int start = slots.first; start < slots.last; start += S::kKeys) {
        copy_wait();
        __syncthreads();  // this tile is there for all, and all are done with the one that is overwritten now
        if (start + S::kKeys < slots.last) copy_keys(start + S::kKeys, other);
        Scores<S> scores{};
        multiply_keys<T, S>(scores, q_lane, stage + k_lane);
        if (p.cap > 0) {
            // tanh x = 1 - 2 / (e^2x + 1): exact to 2^-23 of the cap.
            float inner = 2 * kLog2E * p.scale / p.cap;
            for_scores<S>(scores, [&](float& score, int, int) {
                score = p.cap * (1.0f - __fdividef(2.0f, exp2_fast(score * inner) + 1.0f));
            });
        }
        hide<T, S>(p, slots, scores, tile.start + warp * S::kWarpRows, start);
        raise<S>(rows, scores, factor);
        weigh<S>(rows, scores, factor);
        multiply_values<T, S>(rows, scores, stage + v_lane);
        uint32_t swap = stage;
        stage = other;
        other = swap;
    }
    // Without any key q is still on its way to where y passes through.
    copy_wait();
    __syncthreads();
    int first_row = warp * S::kWarpRows;
    T* y = p.y + (first_query + first_row) * p.y_stride + static_cast<int64_t>(tile.head) * p.width;
    float unscale = 1;
    if (p.v_largest != nullptr) {
        unscale = 1 / scale_to_half(p.v_largest[tile.sample * (p.heads / p.share) + tile.head / p.share]);
    }
    write_rows<T, S>(rows, shared + first_row * S::kPitch, y, p.y_stride, end - tile.start - first_row,
                     p.width, unscale);
}

template <class S, class T>
void launch_mma(const AttentionProblem<T>& p, int64_t batch, Device device) {
    auto kernel = attention_mma_kernel<T, S>;
    cudaStream_t stream = stream_of(device);  // makes the device current, which the attribute is for
    CHECK_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes));
    kernel<<<query_blocks(p, batch, S::kRows), S::kThreads, S::kBytes, stream>>>(p);
    check_launch("attention_mma_kernel", device);
}

int shared_limit(Device device) {
    int bytes = 0;
    CHECK_CUDA(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device.index));
    return bytes;
}

template <class T>
bool rows_fit(const T* x, int64_t stride) {
    return reinterpret_cast<uintptr_t>(x) % 16 == 0 && stride % 8 == 0 && stride <= INT32_MAX;
}

}  // namespace

template <class T>
bool attention_by_mma(AttentionProblem<T> p, int64_t batch, Device device) {
    bool fits = rows_fit(p.q, p.q_stride) && rows_fit(p.k, p.k_stride) && rows_fit(p.v, p.v_stride) &&
                rows_fit<T>(p.y, p.y_stride);
    if (!fits || p.width % 8 != 0 || p.width > 384 || !(p.scale > 0)) return false;
    HalfValues values;
    if constexpr (std::is_same_v<T, bf16_t>) values = half_values(p, batch, device);
    // Cards differ in shared memory: 99 KiB a block at least, 227 KiB on Hopper. Registers hold eight warps; where two
    // blocks of four do not fit, one block of eight has tiles of half the keys.
    using Pair = AttentionShape<112, 2, 4, 64, 2>;
    using Wide = AttentionShape<384, 1, 8, 32, 1>;
    int limit = shared_limit(device);
    if (p.width <= 64) {
        launch_mma<AttentionShape<64, 2, 4, 64, 3>>(p, batch, device);
    } else if (p.width <= 112 && limit >= 2 * Pair::kBytes) {
        launch_mma<Pair>(p, batch, device);
    } else if (p.width <= 112) {
        launch_mma<AttentionShape<112, 2, 8, 32, 1>>(p, batch, device);
    } else if (p.width <= 128) {
        launch_mma<AttentionShape<128, 2, 4, 32, 2>>(p, batch, device);
    } else if (p.width <= 256) {
        launch_mma<AttentionShape<256, 1, 4, 32, 2>>(p, batch, device);
    } else if (limit >= Wide::kBytes) {
        launch_mma<Wide>(p, batch, device);
    } else {
        launch_mma<AttentionShape<384, 1, 4, 16, 2>>(p, batch, device);
    }
    return true;
}

template bool attention_by_mma(AttentionProblem<bf16_t>, int64_t, Device);
template bool attention_by_mma(AttentionProblem<f16_t>, int64_t, Device);

}  // namespace sana::cuda
