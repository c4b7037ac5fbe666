// The state of linear attention on Hopper: device/linear_attention_state.cuh with the products by wgmma and the tiles brought by
// the copy engine, so that warps only make features. A warpgroup has 64 channels of k~ (of the second one's, 48 exist) by all
// of v of a head; its warps turn their 16 channels of the next 16 tokens into features while the tensor cores multiply the
// last ones. Nothing holds the warps of a block together but the stages. Bytes: k and v once, the rope tables once for two
// heads (from L2). FLOPs 2*B*N*C*128 a term.
#pragma once

#include "ops/cuda/device/linear_attention_sm90.cuh"
#include "ops/cuda/device/linear_attention_state.cuh"

namespace sana::cuda {

// Boxes of 32 tokens: of k and v 64 columns of two heads, of the tables 32 angles.
struct StateMaps {
    CUtensorMap k, v, cos, sin;
};

struct HopperState {
    static constexpr int kHeads = 2, kTile = 32, kStages = 4, kThreads = kHeads * 256;
    static constexpr int kBox = kTile * kBoxRow,
                         kBoxes = kHeads * kBox;  // bytes: of a head, from columns to columns
    static constexpr int kValues = 2 * kBoxes, kCos = 2 * kValues, kSin = kCos + 2 * kBox,
                         kStage = kSin + 2 * kBox;
    static constexpr int kBarriers = kStages * kStage, kBytes = kBarriers + kStages * 16 + 1024;
};

template <int Terms>
__global__ void __launch_bounds__(HopperState::kThreads, 1)
    hopper_state_kernel(const __grid_constant__ LinearAttentionProblem<bf16_t> p,
                        const __grid_constant__ StateMaps maps, TokenRanges ranges) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    using S = HopperState;
    extern __shared__ uint8_t shared[];
    uint32_t base = (sm90::shared_address(shared) + 1023) & ~1023u;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
    int groups = (p.heads + S::kHeads - 1) / S::kHeads, sample = static_cast<int>(blockIdx.x) / groups,
        first_head = static_cast<int>(blockIdx.x) % groups * S::kHeads;
    int slab = warp % 8, head = first_head + warp / 8;
    bool used = slab < kHopperSteps;
    int start = static_cast<int>(blockIdx.y) * ranges.length, end = min(p.tokens, start + ranges.length),
        tiles = (end - start + S::kTile - 1) / S::kTile;

    uint32_t full = base + S::kBarriers, empty = full + S::kStages * 8;
    if (threadIdx.x == 0) {
        for (int s = 0; s < S::kStages; ++s) {
            sm90::barrier_init(full + s * 8, 1);
            sm90::barrier_init(empty + s * 8, S::kThreads / 32);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    // The first head's warp without channels has time for it.
    bool loads = warp == kHopperSteps && lane == 0;
    auto load = [&](int tile) {
        if (tile >= tiles) return;
        uint32_t stage = base + tile % S::kStages * S::kStage, barrier = full + tile % S::kStages * 8;
        int token = start + tile * S::kTile;
        sm90::barrier_expect(barrier, S::kStage);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            sm90::copy_box_4d(stage + i * S::kBoxes, &maps.k, barrier, i * 64, token, first_head, sample);
            sm90::copy_box_4d(stage + S::kValues + i * S::kBoxes, &maps.v, barrier, i * 64, token, first_head,
                              sample);
            sm90::copy_box_2d(stage + S::kCos + i * S::kBox, &maps.cos, barrier, i * 64, token);
            sm90::copy_box_2d(stage + S::kSin + i * S::kBox, &maps.sin, barrier, i * 64, token);
        }
    };
    if (loads) {
        for (int tile = 0; tile < S::kStages; ++tile) load(tile);
    }

    SlabWeights weights(p, used && head < p.heads ? head * kHopperWidth + slab * 16 : -1);
    auto row_scale = [&](int tile) {
        int token = start + tile * S::kTile + lane;
        return token < end ? p.k_scales[static_cast<int64_t>(sample) * p.tokens + token] : 0.0f;
    };
    float next_scale = row_scale(0);

    float sums[kHopperWidth / 8][4] = {}, k_sum[4] = {};
    uint32_t a[2][Terms][4] = {};
    uint32_t own_head = warp / 8 * S::kBox;
    uint32_t k_lane = chunk_address(lane_address(own_head, lane % 16, lane / 16), slab * 2, S::kBoxes);
    // Pairs c and c + 4 of the slab are of two chunks, which differ in one bit.
    uint32_t angle_lane = chunk_address(lane_address(S::kCos, g, 0), slab * 2, S::kBox) + c * 4;
#pragma unroll 1
    for (int tile = 0; tile < tiles; ++tile) {
        float scales = next_scale;
        next_scale = row_scale(tile + 1);
        int current = tile % S::kStages;
        uint32_t stage = current * S::kStage;
        sm90::barrier_wait(full + current * 8, tile / S::kStages % 2);
#pragma unroll
        for (int step = 0; step < S::kTile / 16; ++step) {
            float r[2];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                r[half] = __shfl_sync(0xffffffffu, scales, step * 16 + half * 8 + g);
            }
            if (used) {
                uint32_t k[4];
                load_matrices(k, base + stage + k_lane + step * 16 * kBoxRow);
                key_features<bf16_t, Terms>(k, r, weights.of, k_sum, a[step], [&](int half, int e) {
                    const uint8_t* turn = shared + (base - sm90::shared_address(shared)) + stage +
                                          (angle_lane ^ (e * 16)) + (step * 16 + half * 8) * kBoxRow;
                    return float2{*reinterpret_cast<const float*>(turn),
                                  *reinterpret_cast<const float*>(turn + S::kSin - S::kCos)};
                });
            }
            uint64_t v =
                values_descriptor<S::kBoxes>(base + stage + S::kValues + own_head + step * 16 * kBoxRow);
            sm90::wgmma_begin();
#pragma unroll
            for (int t = 0; t < Terms; ++t) wgmma_112<bf16_t, 1>(sums, a[step][t], v);
            sm90::wgmma_commit();
            sm90::wgmma_wait<1>();
            if (step == 0 && tile > 0) {  // the last tile's products are done
                int last = (tile - 1) % S::kStages;
                if (lane == 0) sm90::barrier_arrive(empty + last * 8);
                if (loads && tile - 1 + S::kStages < tiles) {
                    sm90::barrier_wait(empty + last * 8, (tile - 1) / S::kStages % 2);
                    load(tile - 1 + S::kStages);
                }
                __syncwarp();
            }
        }
    }
    sm90::wgmma_wait<0>();
    results_are_there(sums);
    if (used && head < p.heads) {
        int64_t slot = (static_cast<int64_t>(blockIdx.y) * p.samples + sample) * p.heads + head;
        put_slab<kHopperWidth>(ranges, slot, slab, sums, k_sum, 1 / weights.scale);
    }
#endif
}

}  // namespace sana::cuda
