// The last step of linear attention on Hopper, to E4M3 with a scale a row: the four blocks of a cluster share kRows tokens, each
// with a quarter of the heads. All of q is in shared memory, so that its norm needs no pass of its own; y takes its place,
// rounded to bf16, and becomes codes when the largest of the row is known. Blocks tell each other their parts of a row's
// squares and maximum. kv of the next head arrives while y of the last one is written and q~ of the next one made. Bytes: q
// once, codes once; the state of every head once for kRows tokens, from L2.
#pragma once

#include "ops/cuda/device/linear_attention_apply.cuh"
#include "ops/cuda/device/linear_attention_sm90.cuh"
#include "ops/cuda/device/rows.cuh"

namespace sana::cuda {

struct CodesShape {
    static constexpr int kWidth = kHopperWidth, kRanks = 4, kHeads = 5;  // kHeads: of a block, at most
    static constexpr int kWarps = 4, kThreads = kWarps * 32, kRows = kWarps * 16;
    static constexpr int kBox = 16 * kBoxRow, kTile = 2 * kBox;  // 64 columns, a head: of a warp's 16 tokens
    static constexpr int kFactorStages = 3;
    static constexpr int kKv = kWarps * kHeads * kTile, kFactors = kKv + kHopperKv,
                         kSquares = kFactors + kFactorStages * kHopperFactors,
                         kLargest = kSquares + kRanks * kRows * 4, kInverse = kLargest + kRanks * kRows * 4,
                         kBarriers = kInverse + kRows * 4,
                         kBytes = kBarriers + (1 + kFactorStages + kWarps) * 8 + 1024;
    static_assert(kBytes <= (228 / 2 - 1) * 1024, "two blocks a multiprocessor");
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

// Launched in clusters of kRanks. q: boxes of 64 columns of 16 tokens.
__global__ void __launch_bounds__(CodesShape::kThreads, 2)
    apply_codes_kernel(const __grid_constant__ LinearAttentionProblem<bf16_t> p,
                       const __grid_constant__ CUtensorMap q_map, const HopperHead* states,
                       LinearAttentionCodes to) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    using S = CodesShape;
    extern __shared__ uint8_t shared[];
    uint32_t base = (sm90::shared_address(shared) + 1023) & ~1023u;
    uint8_t* memory = shared + (base - sm90::shared_address(shared));
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
    int rank = static_cast<int>(sm90::cluster_rank()), sample = static_cast<int>(blockIdx.y),
        first = static_cast<int>(blockIdx.x) / S::kRanks * S::kRows, rows = min(S::kRows, p.tokens - first);
    int share = (p.heads + S::kRanks - 1) / S::kRanks, head = rank * share,
        heads = max(0, min(share, p.heads - head));
    int64_t first_row = static_cast<int64_t>(sample) * p.tokens + first;
    const HopperHead* state = states + static_cast<int64_t>(sample) * p.heads + head;
    uint32_t kv_full = base + S::kBarriers, factors_full = kv_full + 8,
             landed = factors_full + (S::kFactorStages + warp) * 8;
    uint32_t tiles = warp * S::kHeads * S::kTile;  // of the warp
    if (threadIdx.x == 0) {
        for (int i = 0; i < 1 + S::kFactorStages + S::kWarps; ++i) sm90::barrier_init(kv_full + i * 8, 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    auto load_kv = [&](int h) {
        if (h >= heads) return;
        sm90::barrier_expect(kv_full, kHopperKv);
        sm90::copy_bulk(base + S::kKv, state[h].kv, kHopperKv, kv_full);
    };
    auto load_factors = [&](int h) {
        if (h >= heads) return;
        int stage = h % S::kFactorStages;
        sm90::barrier_expect(factors_full + stage * 8, kHopperFactors);
        sm90::copy_bulk(base + S::kFactors + stage * kHopperFactors, &state[h].factors, kHopperFactors,
                        factors_full + stage * 8);
    };
    if (lane == 0) {
        sm90::barrier_expect(landed, heads * S::kTile);
        for (int h = 0; h < heads; ++h) {
            for (int box = 0; box < 2; ++box) {
                sm90::copy_box_4d(base + tiles + h * S::kTile + box * S::kBox, &q_map, landed, box * 64,
                                  first + warp * 16, head + h, sample);
            }
        }
    }
    if (threadIdx.x == 0) {
        load_kv(0);
        for (int h = 0; h < S::kFactorStages - 1; ++h) load_factors(h);
    }
    Angles<S> angles;
    load_angles<S>(p, first + warp * 16, angles);
    sm90::barrier_wait(landed, 0);

    // Two lanes a row, each with half of the columns, in turns that spread over the banks. Columns behind the head are zeros.
    float squares = 0;
    int row = lane / 2;
    for (int h = 0; h < heads; ++h) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            uint4 v = *reinterpret_cast<const uint4*>(memory + tiles + h * S::kTile + lane % 2 * S::kBox +
                                                      row * kBoxRow + (i ^ lane % 2 * 4 ^ row % 8) * 16);
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
        return table + (of_rank * S::kRows + warp * 16 + of_row) * 4;
    };
    sm90::cluster_sync();  // all blocks are there to be told
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
            total += *reinterpret_cast<const float*>(memory + place(S::kSquares, of, half * 8 + g));
        r[half] = 1 / sqrtf(total / static_cast<float>(p.channels()) + to.norm_eps);
    }
    uint32_t q = lane_address(base + tiles, lane % 16, lane / 16);
    uint32_t largest[2] = {};
#pragma unroll 1
    for (int h = 0; h < heads; ++h) {
        int stage = h % S::kFactorStages;
        const auto& f = *reinterpret_cast<const HeadFactors<kHopperWidth>*>(memory + S::kFactors +
                                                                            stage * kHopperFactors);
        float sums[kHopperWidth / 8][4], normaliser[2] = {};
        uint32_t a[kHopperSteps][1][4];
        sm90::barrier_wait(factors_full + stage * 8, h / S::kFactorStages % 2);
        hopper_queries(q + h * S::kTile, S::kBox, f, r, angles, normaliser, a);
        sm90::barrier_wait(kv_full, h % 2);
        begin_product(sums, a, base + S::kKv);
        sm90::wgmma_wait<0>();
        results_are_there(sums);
        __syncthreads();  // all are done with kv, and with the factors of the last head
        if (threadIdx.x == 0) {
            load_kv(h + 1);
            load_factors(h + S::kFactorStages - 1);
        }
        put_boxes(q + h * S::kTile, S::kBox, f, sums, normaliser, [&](int half, uint32_t pair) {
            // Magnitudes of bf16 in the order of their bits.
            largest[half] = __vmaxu2(largest[half], pair & 0x7fff7fffu);
        });
    }

#pragma unroll
    for (int half = 0; half < 2; ++half) {
        uint32_t bits = max(largest[half] << 16, largest[half] & 0xffff0000u);
        bits = max(bits, __shfl_xor_sync(0xffffffffu, bits, 1));
        bits = max(bits, __shfl_xor_sync(0xffffffffu, bits, 2));
        tell(base + place(S::kLargest, rank, half * 8 + g), c, bits);
    }
    sm90::cluster_sync();

    if (lane < 16) {
        uint32_t bits = 0;
#pragma unroll
        for (int of = 0; of < S::kRanks; ++of)
            bits = max(bits, *reinterpret_cast<const uint32_t*>(memory + place(S::kLargest, of, lane)));
        PowerOfTwo power = power_of_two(bits);
        *reinterpret_cast<float*>(memory + place(S::kInverse, 0, lane)) = power.inverse;
        if (rank == 0 && warp * 16 + lane < rows) to.scale[first_row + warp * 16 + lane] = power.scale;
    }
    __syncwarp();
    constexpr int kUnits = kHopperSteps;  // of 16 codes
    for (int h = 0; h < heads; ++h) {
#pragma unroll
        for (int item = lane; item < 16 * kUnits; item += 32) {
            int of = item / kUnits, unit = item % kUnits;
            if (warp * 16 + of >= rows) break;
            float inverse = *reinterpret_cast<const float*>(memory + place(S::kInverse, 0, of));
            uint32_t from = tiles + h * S::kTile + unit / 4 * S::kBox + of * kBoxRow;
            Vector<uint16_t, 8> out;
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                auto v = *reinterpret_cast<const uint4*>(memory + from + ((unit % 4 * 2 + i) ^ of % 8) * 16);
                uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    float2 x = unpack<bf16_t>(pairs[j]);
                    out.values[4 * i + j] = __nv_cvt_float2_to_fp8x2(
                        make_float2(x.x * inverse, x.y * inverse), __NV_SATFINITE, __NV_E4M3);
                }
            }
            uint8_t* codes = to.codes + (first_row + warp * 16 + of) * p.channels() +
                             (head + h) * kHopperWidth + unit * 16;
            *reinterpret_cast<Vector<uint16_t, 8>*>(codes) = out;
        }
    }
#endif
}

}  // namespace sana::cuda
