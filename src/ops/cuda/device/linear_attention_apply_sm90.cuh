// The last step of linear attention on Hopper: device/linear_attention_apply.cuh with the products by wgmma. A warp has 16
// tokens, brings its own q two heads ahead and sends its y by the copy engine, so that warps meet only at the state of a head,
// which all of them read. A block a multiprocessor goes through its share of the work, so that angles are loaded once a tile.
// Bytes: q and y once; the state of every head once for kRows tokens, from L2.
#pragma once

#include "ops/cuda/device/linear_attention_apply.cuh"
#include "ops/cuda/device/linear_attention_sm90.cuh"

namespace sana::cuda {

// Boxes of 64 columns of 16 tokens.
struct ApplyMaps {
    CUtensorMap q, y;
};

struct HopperApply {
    static constexpr int kWidth = kHopperWidth, kWarps = 12, kThreads = kWarps * 32, kRows = kWarps * 16;
    static constexpr int kSlots = 3, kBox = 16 * kBoxRow, kSlot = 2 * kBox;  // of a warp
    static constexpr int kHead = kWarps * kSlots * kSlot, kHeadPitch = (sizeof(HopperHead) + 127) / 128 * 128;
    static constexpr int kBarriers = kHead + 2 * kHeadPitch,
                         kBytes = kBarriers + (4 + kWarps * kSlots) * 8 + 1024;
};

// A head of kRows tokens of a sample.
struct ApplyUnit {
    int head, tile, sample;

    __device__ __forceinline__ ApplyUnit(int64_t index, int heads, int tiles)
        : head(static_cast<int>(index % heads)),
          tile(static_cast<int>(index / heads % tiles)),
          sample(static_cast<int>(index / heads / tiles)) {}
    __device__ __forceinline__ void advance(int heads, int tiles) {
        if (++head < heads) return;
        head = 0;
        if (++tile < tiles) return;
        tile = 0;
        ++sample;
    }
};

// A block: its share of all units, heads of a tile in a row.
__global__ void __launch_bounds__(HopperApply::kThreads, 1)
    hopper_apply_kernel(const __grid_constant__ LinearAttentionProblem<bf16_t> p,
                        const __grid_constant__ ApplyMaps maps, const HopperHead* heads, int tiles) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    using S = HopperApply;
    extern __shared__ uint8_t shared[];
    uint32_t base = (sm90::shared_address(shared) + 1023) & ~1023u;
    const uint8_t* memory = shared + (base - sm90::shared_address(shared));
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int64_t units = static_cast<int64_t>(p.samples) * tiles * p.heads, begin = units * blockIdx.x / gridDim.x;
    int count = static_cast<int>(units * (blockIdx.x + 1) / gridDim.x - begin);

    uint32_t full = base + S::kBarriers, empty = full + 16, landed = empty + 16 + warp * S::kSlots * 8;
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; ++i) {
            sm90::barrier_init(full + i * 8, 1);
            sm90::barrier_init(empty + i * 8, S::kWarps);
        }
        for (int i = 0; i < S::kWarps * S::kSlots; ++i) sm90::barrier_init(landed + i * 8, 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    auto load_head = [&](int i, const ApplyUnit& unit) {
        uint32_t barrier = full + i % 2 * 8;
        sm90::barrier_expect(barrier, sizeof(HopperHead));
        sm90::copy_bulk(base + S::kHead + i % 2 * S::kHeadPitch,
                        heads + static_cast<int64_t>(unit.sample) * p.heads + unit.head, sizeof(HopperHead),
                        barrier);
    };
    auto slot_of = [&](int i) { return base + (warp * S::kSlots + i % S::kSlots) * S::kSlot; };
    auto load_q = [&](int i, const ApplyUnit& unit) {
        if (i >= count) return;
        uint32_t barrier = landed + i % S::kSlots * 8;
        sm90::barrier_expect(barrier, S::kSlot);
        for (int box = 0; box < 2; ++box) {
            sm90::copy_box_4d(slot_of(i) + box * S::kBox, &maps.q, barrier, box * 64,
                              unit.tile * S::kRows + warp * 16, unit.head, unit.sample);
        }
    };
    ApplyUnit unit(begin, p.heads, tiles), ahead = unit;
    if (threadIdx.x == 0) load_head(0, unit);
    for (int i = 0; i < S::kSlots - 1; ++i) {
        if (lane == 0) load_q(i, ahead);
        ahead.advance(p.heads, tiles);
    }

    float r[2];  // scales of tokens g and g + 8 of the warp
    Angles<S> angles;
#pragma unroll 1
    for (int i = 0; i < count; ++i) {
        int token = unit.tile * S::kRows + warp * 16;
        if (i == 0 || unit.head == 0) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                int at = min(token + half * 8 + lane / 4, p.tokens - 1);
                r[half] = p.q_scales[static_cast<int64_t>(unit.sample) * p.tokens + at];
            }
            load_angles<S>(p, token, angles);
        }
        uint32_t slot = slot_of(i), q = lane_address(slot, lane % 16, lane / 16);
        uint32_t kv = base + S::kHead + i % 2 * S::kHeadPitch;
        const auto& f = *reinterpret_cast<const HeadFactors<kHopperWidth>*>(memory + (kv - base) + kHopperKv);
        sm90::barrier_wait(full + i % 2 * 8, i / 2 % 2);
        sm90::barrier_wait(landed + i % S::kSlots * 8, i / S::kSlots % 2);
        float sums[kHopperWidth / 8][4], normaliser[2] = {};
        uint32_t a[kHopperSteps][1][4];
        hopper_queries(q, S::kBox, f, r, angles, normaliser, a);
        begin_product(sums, a, kv);
        ApplyUnit next = unit;
        next.advance(p.heads, tiles);
        if (threadIdx.x == 0 && i + 1 < count) {
            if (i > 0) sm90::barrier_wait(empty + (i + 1) % 2 * 8, (i - 1) / 2 % 2);
            load_head(i + 1, next);
        }
        if (lane == 0) {
            sm90::store_wait();  // the last unit's y has left the place of the next q but one
            load_q(i + S::kSlots - 1, ahead);
        }
        ahead.advance(p.heads, tiles);
        __syncwarp();
        sm90::wgmma_wait<0>();
        results_are_there(sums);
        put_boxes(q, S::kBox, f, sums, normaliser, [](int, uint32_t) {});
        sm90::store_fence();
        __syncwarp();
        if (lane == 0) {
            sm90::barrier_arrive(empty + i % 2 * 8);
            for (int box = 0; box < 2; ++box) {
                sm90::store_box_4d(&maps.y, slot + box * S::kBox, box * 64, token, unit.head, unit.sample);
            }
            sm90::store_commit();
        }
        unit = next;
    }
    if (lane == 0) sm90::store_wait();  // shared memory must outlive the reads
#endif
}

}  // namespace sana::cuda
