// The last step of linear attention on Hopper, to E4M3 with a scale a row: the four blocks of a cluster share kRows tokens, each
// with a quarter of the heads. All of q is in shared memory, so that its norm needs no pass of its own; y takes its place,
// rounded to bf16, and becomes codes when the largest of the row is known. Blocks tell each other their parts of a row's
// squares and maximum. Bytes: q once, codes once; the state of every head once for kRows tokens, from L2.
#pragma once

#include "ops/cuda/device/linear_attention_apply.cuh"
#include "ops/cuda/device/rows.cuh"
#include "ops/cuda/device/sm90.cuh"

namespace sana::cuda {

template <int Width>
struct CodesShape {
    static constexpr int kWidth = Width, kTerms = 1, kRanks = 4, kHeads = 5;  // kHeads: of a block, at most
    static constexpr int kThreads = 128, kRows = kThreads / 2, kPitch = (Width + 8) * 2,
                         kTile = kRows * kPitch;
    using State = HeadState<Width, kTerms>;
    static constexpr int kState = kHeads * kTile, kSquares = kState + static_cast<int>(sizeof(State)),
                         kLargest = kSquares + kRanks * kRows * 4, kInverse = kLargest + kRanks * kRows * 4,
                         kBytes = kInverse + kRows * 4;
    static_assert(kState % 16 == 0 && sizeof(State) % 16 == 0 && Width % 16 == 0);
};

// Writes to the same place in a block of the cluster.
__device__ __forceinline__ void tell(uint32_t address, int rank, uint32_t value) {
    asm volatile(
        "{\n"
        ".reg .b32 remote;\n"
        "mapa.shared::cluster.u32 remote, %0, %1;\n"
        "st.shared::cluster.b32 [remote], %2;\n"
        "}\n" ::"r"(address),
        "r"(rank), "r"(value)
        : "memory");
}

struct alignas(16) Row16 {
    uint32_t pairs[8];
};

// Launched in clusters of kRanks.
template <class S>
__global__ void __launch_bounds__(S::kThreads, 2)
    apply_codes_kernel(const __grid_constant__ LinearAttentionProblem<bf16_t> p,
                       const typename S::State* states, LinearAttentionCodes to) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(16) uint8_t shared[];
    uint32_t base = sm90::shared_address(shared);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
    int rank = static_cast<int>(sm90::cluster_rank()), sample = static_cast<int>(blockIdx.y),
        first = static_cast<int>(blockIdx.x) / S::kRanks * S::kRows, rows = min(S::kRows, p.tokens - first);
    int share = (p.heads + S::kRanks - 1) / S::kRanks, head = rank * share,
        heads = max(0, min(share, p.heads - head));
    int64_t first_row = static_cast<int64_t>(sample) * p.tokens + first;
    const bf16_t* q = p.q + first_row * p.q_stride + head * S::kWidth;
    const auto* state =
        reinterpret_cast<const uint8_t*>(states + static_cast<int64_t>(sample) * p.heads + head);
    RowCopy<S::kWidth / 8, S::kPitch, S::kThreads> part;
    auto copy_state = [&](int h) {
        constexpr int kSize = static_cast<int>(sizeof(typename S::State));
        for (int at = static_cast<int>(threadIdx.x) * 16; at < kSize; at += S::kThreads * 16)
            copy_async(base + S::kState + at, state + h * kSize + at, true);
    };
    for (int h = 0; h < heads; ++h)
        part.template copy<S::kRows>(base + h * S::kTile, q + h * S::kWidth, p.q_stride * 2, rows - 1);
    if (heads > 0) copy_state(0);
    copy_commit();
    Angles<S> angles;
    load_angles<S>(p, first + warp * 16, angles);
    copy_wait();
    sm90::cluster_sync();  // q is there for the block, and all blocks are there to be told

    // Two lanes a row.
    float squares = 0;
    int row = warp * 16 + lane / 2;
    for (int h = 0; h < heads; ++h) {
#pragma unroll
        for (int i = 0; i < S::kWidth / 16; ++i) {
            uint4 v = *reinterpret_cast<const uint4*>(shared + h * S::kTile + row * S::kPitch +
                                                      (2 * i + lane % 2) * 16);
#pragma unroll
            for (uint32_t pair : {v.x, v.y, v.z, v.w}) {
                float2 x = unpack<bf16_t>(pair);
                squares += x.x * x.x;
                squares += x.y * x.y;
            }
        }
    }
    squares += __shfl_xor_sync(0xffffffffu, squares, 1);
    auto place = [&](int table, int of_rank, int of_row) {
        return table + (of_rank * S::kRows + of_row) * 4;
    };
#pragma unroll
    for (int i = 0; i < 2; ++i)
        tell(base + place(S::kSquares, rank, row), lane % 2 * 2 + i, __float_as_uint(squares));
    sm90::cluster_sync();

    float r[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float total = 0;
#pragma unroll
        for (int of = 0; of < S::kRanks; ++of)
            total +=
                *reinterpret_cast<const float*>(shared + place(S::kSquares, of, warp * 16 + half * 8 + g));
        r[half] = 1 / sqrtf(total / static_cast<float>(p.channels()) + to.norm_eps);
    }
    uint32_t q_lane = base + (warp * 16 + lane % 16) * S::kPitch + lane / 16 * 16;
    uint32_t kv_lane = base + S::kState + (lane / 16 * 8 + lane % 8) * S::kPitch + lane / 8 % 2 * 16;
    const auto& f = *reinterpret_cast<const typename S::State*>(shared + S::kState);
    uint32_t largest[2] = {};
#pragma unroll 1
    for (int h = 0; h < heads; ++h) {
        float sums[S::kWidth / 8][4] = {}, normaliser[2] = {};
        apply_head<bf16_t, S>(q_lane + h * S::kTile, kv_lane, f, r, angles, sums, normaliser);
        __syncwarp();  // all of the warp's rows of q are read: y takes their place
        put_head<bf16_t, S>(shared + h * S::kTile + warp * 16 * S::kPitch, f, sums, normaliser,
                            [&](int half, uint32_t pair) {
                                // Magnitudes of bf16 in the order of their bits.
                                largest[half] = __vmaxu2(largest[half], pair & 0x7fff7fffu);
                            });
        __syncthreads();  // all are done with the state
        if (h + 1 == heads) break;
        copy_state(h + 1);
        copy_wait();
        __syncthreads();
    }

#pragma unroll
    for (int half = 0; half < 2; ++half) {
        uint32_t bits = max(largest[half] << 16, largest[half] & 0xffff0000u);
        bits = max(bits, __shfl_xor_sync(0xffffffffu, bits, 1));
        bits = max(bits, __shfl_xor_sync(0xffffffffu, bits, 2));
        tell(base + place(S::kLargest, rank, warp * 16 + half * 8 + g), c, bits);
    }
    sm90::cluster_sync();

    if (lane < 16) {
        uint32_t bits = 0;
#pragma unroll
        for (int of = 0; of < S::kRanks; ++of)
            bits = max(bits,
                       *reinterpret_cast<const uint32_t*>(shared + place(S::kLargest, of, warp * 16 + lane)));
        PowerOfTwo power = power_of_two(bits);
        *reinterpret_cast<float*>(shared + place(S::kInverse, 0, warp * 16 + lane)) = power.inverse;
        if (rank == 0 && warp * 16 + lane < rows) to.scale[first_row + warp * 16 + lane] = power.scale;
    }
    __syncwarp();
    constexpr int kUnits = S::kWidth / 16;  // of 16 codes
    for (int h = 0; h < heads; ++h) {
#pragma unroll
        for (int item = lane; item < 16 * kUnits; item += 32) {
            int of = warp * 16 + item / kUnits, unit = item % kUnits;
            if (of >= rows) break;
            float inverse = *reinterpret_cast<const float*>(shared + place(S::kInverse, 0, of));
            auto from = *reinterpret_cast<const Row16*>(shared + h * S::kTile + of * S::kPitch + unit * 32);
            Vector<uint16_t, 8> out;
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                float2 x = unpack<bf16_t>(from.pairs[i]);
                out.values[i] = __nv_cvt_float2_to_fp8x2(make_float2(x.x * inverse, x.y * inverse),
                                                         __NV_SATFINITE, __NV_E4M3);
            }
            uint8_t* codes = to.codes + (first_row + of) * p.channels() + (head + h) * S::kWidth + unit * 16;
            *reinterpret_cast<Vector<uint16_t, 8>*>(codes) = out;
        }
    }
#endif
}

}  // namespace sana::cuda
