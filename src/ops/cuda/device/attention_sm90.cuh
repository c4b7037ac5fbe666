// Attention on Hopper's tensor cores for texts that fit into shared memory: bf16, no order among keys, up to 304 of
// them. The scores of a query stay in registers, all of them, so that its softmax is a plain one: no running maximum.
// Mapping: a block an SM, persistent. The keys of one head lie in shared memory for as long as the block has tiles of this
// head: K as [keys x D] in bf16, V transposed as [D x keys] in fp16, swizzled as wgmma reads them (attention_sm90.cu writes
// them so: only kept keys, the rest zeros). Two warpgroups have 64 queries of each tile. Their softmax is as long as half of
// their products, so they take turns: in its turn a warpgroup multiplies the weights of one tile with V and its next queries
// with K, and while the other has its turn it makes weights of these scores. A third warpgroup has three threads at work:
// two bring each multiplier's queries and take its results away, in the same place in shared memory, one brings keys.
// Weights are fp16, whose 11 bits are an eighth of the rounding of a bf16 result, 2^14 times too large to have fp16's range.
// FLOPs 4*B*A*N*L*D; bytes: q and y once; keys from L2, once or a few times a block. Bounds of B2 N32760 L300 A20 D112 on 132
// multiprocessors, in cycles: products 326 K, exponentials 186 K.
// H200, 2026-12-01, bf16, that size: 0.305 ms with the kernel that lays keys out (mma kernel: 0.756), 508 K cycles; one key
// kept: 0.232 ms, q and y alone. Tiles in order of heads, so that blocks have other heads' rows at other times: 584 K.
#pragma once

#include "ops/cuda/device/attention.cuh"
#include "ops/cuda/device/attention_plan_sm90.cuh"
#include "ops/cuda/device/mma.cuh"
#include "ops/cuda/device/sm90_wgmma.cuh"

namespace sana::cuda::sm90_attention {

constexpr int kThreads = 384, kRows = 64, kTile = 2 * kRows;  // queries of a warpgroup, of a block
constexpr int kRow = 128;                                     // bytes of a row in shared memory

template <int Width>
struct Layout {
    // Registers hold a thread's scores of two queries and its results of one tile.
    static constexpr int kMaxKeys = Width > 112 ? 256 : 304, kMaxSpans = spans(kMaxKeys);
    static constexpr int kSpans = spans(Width);                // of the columns of q, k and y
    static constexpr int kBox = kRows * kRow;                  // a span of q or y
    static constexpr int kQueries = kSpans * kBox;             // a stage of a warpgroup
    static constexpr int kKeySpan = kMaxSpans * kSpan * kRow;  // a span of K
    static constexpr int kValueSpan = Width * kRow;            // kSpan keys of V
    static constexpr int kK = 0, kV = kK + kSpans * kKeySpan, kQ = kV + kMaxSpans * kValueSpan,
                         kBarriers = kQ + 4 * kQueries, kBytes = kBarriers + 128 + 1024;
    static_assert(kBytes <= 227 * 1024);
};

// What the multipliers know of a run; written by the thread that loads its keys.
struct Work {
    int keys, tiles;
    float unscale;
    bool last;  // of the block's
};

// A block's tiles, as one thread has found them for all.
struct Tiles {
    Walk walk;
    int64_t total;
    int blocks;
    __device__ bool done() const { return walk.done(); }
    __device__ Run next(const Plan& g) { return walk.next(g, total, blocks); }
};

// Barriers in shared memory. filled: by the copy engine; k and v read: by eight warps; results: a warpgroup's four have
// written them where the queries were.
struct Barriers {
    uint32_t base;
    __device__ uint32_t k_filled() const { return base; }
    __device__ uint32_t v_filled() const { return base + 8; }
    __device__ uint32_t k_read() const { return base + 16; }
    __device__ uint32_t v_read() const { return base + 24; }
    __device__ uint32_t queries(int group, int stage) const { return base + 32 + (group * 2 + stage) * 8; }
    __device__ uint32_t results(int group, int stage) const { return base + 64 + (group * 2 + stage) * 8; }
    __device__ void init() const {
        for (int i = 0; i < 12; ++i) sm90::barrier_init(base + i * 8, i < 2 ? 1 : i < 4 ? 8 : i < 8 ? 1 : 4);
    }
};

// One thread for each multiplying warpgroup: tiles by turns in two stages.
template <int Width>
__device__ void move_queries(const Plan& g, const CUtensorMap* q, const CUtensorMap* y, uint32_t shared,
                             Barriers barriers, int group, Tiles tiles) {
    using L = Layout<Width>;
    Run ahead{}, places[2];  // places: of the tile in each stage
    int count = tiles.walk.left;
    for (int i = 0; i < count + 2; ++i) {
        int stage = i % 2;
        uint32_t at = shared + L::kQ + (group * 2 + stage) * L::kQueries;
        auto each_box = [&](auto copy) {
            Run place = places[stage];
            for (int s = 0; s < L::kSpans; ++s)
                copy(at + s * L::kBox, s * kSpan, place.head, place.first * kTile + group * kRows,
                     place.sample);
        };
        if (i >= 2) {
            sm90::barrier_wait(barriers.results(group, stage), (i - 2) / 2 % 2);
            each_box([&](uint32_t from, int column, int head, int row, int sample) {
                sm90::store_box_4d(y, from, column, head, row, sample);
            });
            sm90::store_commit();
            sm90::store_wait();
        }
        if (i >= count) continue;
        if (ahead.count == 0) ahead = tiles.next(g);
        places[stage] = ahead;
        ++ahead.first;
        --ahead.count;
        uint32_t barrier = barriers.queries(group, stage);
        sm90::barrier_expect(barrier, L::kQueries);
        each_box([&](uint32_t to, int column, int head, int row, int sample) {
            sm90::copy_box_4d(to, q, barrier, column, head, row, sample);
        });
    }
}

template <int Width>
__device__ void load_keys(const Plan& g, uint32_t shared, Barriers barriers, Tiles tiles, Work* work) {
    using L = Layout<Width>;
    for (uint32_t phase = 1; !tiles.done(); phase ^= 1) {
        Run run = tiles.next(g);
        int keys = g.kept_keys(run.sample), used = spans(keys), head = g.key_head(run.sample, run.head);
        const uint8_t* from = g.keys + g.size * head;
        int key_bytes = used * kSpan * kRow, value_bytes = used * L::kValueSpan;
        float unscale = 1 / scale_to_half(g.largest[head]);
        sm90::barrier_wait(barriers.k_read(), phase);
        *work = {keys, run.count, unscale, tiles.done()};  // both have read the former
        sm90::barrier_expect(barriers.k_filled(), L::kSpans * key_bytes);
        for (int s = 0; s < L::kSpans; ++s) {
            sm90::copy_bulk(shared + L::kK + s * L::kKeySpan, from, key_bytes, barriers.k_filled());
            from += spans(g.length) * kSpan * kRow;
        }
        sm90::barrier_wait(barriers.v_read(), phase);
        sm90::barrier_expect(barriers.v_filled(), value_bytes);
        sm90::copy_bulk(shared + L::kV, from, value_bytes, barriers.v_filled());
    }
}

// A multiplying warpgroup's place in the block's work.
template <int Width>
struct Multiplier {
    using L = Layout<Width>;
    uint32_t shared, results;  // results: where this lane stores matrices, in the first stage
    Barriers barriers;
    int group, tile = 0;  // tiles whose scores were asked for
    uint32_t key_phase = 0;

    __device__ Multiplier(uint32_t shared, Barriers barriers, int group)
        : shared(shared), barriers(barriers), group(group) {
        int lane = static_cast<int>(threadIdx.x) % 32,
            row = static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane % 16;
        uint32_t stage = shared + L::kQ + group * 2 * L::kQueries;
        results = stage + row * kRow + (lane / 16 ^ lane % 8) * 16;
    }
    __device__ void take_turn() const { sm90::named_wait(1 + group, 256); }
    __device__ void give_turn() const { sm90::named_arrive(2 - group, 256); }
    __device__ void say(uint32_t barrier) const {
        __syncwarp();
        if (threadIdx.x % 32 == 0) sm90::barrier_arrive(barrier);
    }
    // The next tile's queries.
    __device__ uint32_t next_queries() {
        int stage = tile % 2;
        sm90::barrier_wait(barriers.queries(group, stage), tile / 2 % 2);
        ++tile;
        return shared + L::kQ + (group * 2 + stage) * L::kQueries;
    }

    // sm90::descriptor<kRow>(address + offset), with the offset out of the arithmetic; addresses are below 256 KiB.
    __device__ static uint64_t operand(uint32_t address, uint32_t offset) {
        constexpr uint64_t kUpper = uint64_t{kRow * 8 / 16 | 1u << 30} << 32;
        return kUpper | (address / 16 + (offset / 16 + (1u << 16)));
    }

    // Scores of Count keys from key `first` on.
    template <int Count>
    __device__ __forceinline__ void multiply_keys(float (&scores)[Count / 2], uint32_t queries,
                                                  int first) const {
        sm90::wgmma_begin();
#pragma unroll
        for (int step = 0; step < Width / 16; ++step) {
            uint64_t a = operand(queries, step / 4 * L::kBox + step % 4 * 32),
                     b = operand(shared, L::kK + first * kRow + step / 4 * L::kKeySpan + step % 4 * 32);
            if (step == 0) {
                sm90::multiply_bf16<Count, true>(scores, a, b);
            } else {
                sm90::multiply_bf16<Count, false>(scores, a, b);
            }
        }
        sm90::wgmma_commit();
    }

    template <int Steps>
    __device__ __forceinline__ void multiply_values(float (&out)[Width / 2],
                                                    const uint32_t (&weights)[Steps][4]) const {
        sm90::wgmma_begin();
#pragma unroll
        for (int step = 0; step < Steps; ++step) {
            uint64_t b = operand(shared, L::kV + step / 4 * L::kValueSpan + step % 4 * 32);
            if (step == 0) {
                sm90::multiply_fp16<Width, true>(out, weights[step], b);
            } else {
                sm90::multiply_fp16<Width, false>(out, weights[step], b);
            }
        }
        sm90::wgmma_commit();
    }

    // y = out / sum * unscale for tile `of`, in whose queries' place it goes.
    __device__ __forceinline__ void finish(const float (&out)[Width / 2], const float (&sum)[2],
                                           float unscale, int of) const {
        float inverse[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float total = sum[r];
            total += __shfl_xor_sync(0xffffffffu, total, 1);
            total += __shfl_xor_sync(0xffffffffu, total, 2);
            inverse[r] = total == 0 ? 0.0f : __fdividef(unscale, total);
        }
        int stage = of % 2;
        uint32_t to = results + stage * L::kQueries;
        auto pair = [&](int i) {
            return pack<bf16_t>(out[i] * inverse[i / 2 % 2], out[i + 1] * inverse[i / 2 % 2]);
        };
#pragma unroll
        for (int i = 0; i < Width / 2; i += 8)
            store_matrices((to ^ (i / 4 % 8 * 16)) + i / 32 * L::kBox,
                           {pair(i), pair(i + 2), pair(i + 4), pair(i + 6)});
        sm90::store_fence();
        say(barriers.results(group, stage));
    }
};

// A run of tiles of a head with up to 2 * Half keys. `last`: the block has no more.
template <int Width, int Half>
__device__ __forceinline__ void attend(Multiplier<Width>& m, int keys, int count, float factor, float unscale,
                                       bool last) {
    constexpr int kBlocks = Half / 8;  // of 8 columns, the unit of a product's registers
    // The first half's scores are asked for while weights are still being read: these lie where the second half's were,
    // which become weights first.
    float first[Half / 2], second[Half / 2], out[Width / 2], sum[2];
    uint32_t weights[Half / 8][4];
    int left = keys - static_cast<int>(threadIdx.x) % 4 * 2;
    auto hide = [&](float(&scores)[Half / 2], int from) {
#pragma unroll
        for (int i = 0; i < Half / 2; ++i) {
            int column = from + i / 4 * 8 + i % 2;
            if (column / 8 * 8 >= 2 * Half - kSpan && column >= left) scores[i] = -INFINITY;
        }
    };
    float best[2];
    auto raise = [&](float(&scores)[Half / 2], int from) {
        sm90::settled(scores);
        if (keys < 2 * Half) hide(scores, from);
#pragma unroll
        for (int i = 0; i < Half / 2; i += 2)
            best[i / 2 % 2] = fmaxf(best[i / 2 % 2], fmaxf(scores[i], scores[i + 1]));
    };
    // While the second half's products are under way.
    auto begin_weights = [&] {
        sm90::wgmma_wait<1>();
        m.give_turn();
        best[0] = best[1] = -INFINITY;
        raise(first, 0);
    };
    auto make_weights = [&] {
        sm90::wgmma_wait<0>();
        raise(second, Half);
        float offset[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            best[r] = fmaxf(best[r], __shfl_xor_sync(0xffffffffu, best[r], 1));
            best[r] = fmaxf(best[r], __shfl_xor_sync(0xffffffffu, best[r], 2));
            offset[r] = kHalfExponent - (best[r] == -INFINITY ? 0.0f : best[r]) * factor;
            sum[r] = 0;
        }
#pragma unroll
        for (int j = 2 * kBlocks - 1; j >= 0; --j) {
            const float* scores = j < kBlocks ? first + 4 * j : second + 4 * (j - kBlocks);
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                float low = exp2_fast(fmaf(scores[2 * r], factor, offset[r])),
                      high = exp2_fast(fmaf(scores[2 * r + 1], factor, offset[r]));
                sum[r] += low + high;
                weights[j / 2][j % 2 * 2 + r] = pack<f16_t>(low, high);
            }
        }
#pragma unroll
        for (int s = 0; s < kBlocks; ++s) sm90::settled(weights[s]);  // before the turn, not in it
    };
    m.take_turn();
    uint32_t queries = m.next_queries();
    m.template multiply_keys<Half>(first, queries, 0);
    m.template multiply_keys<Half>(second, queries, Half);
    begin_weights();
    for (int i = 1; i < count; ++i) {
        make_weights();
        queries = m.next_queries();
        if (i == 1) sm90::barrier_wait(m.barriers.v_filled(), m.key_phase);
        m.take_turn();
        m.template multiply_values<kBlocks>(out, weights);
        m.template multiply_keys<Half>(first, queries, 0);
        sm90::wgmma_wait<1>();
        sm90::settled(out);
#pragma unroll
        for (int s = 0; s < kBlocks; ++s) sm90::settled(weights[s]);
        m.template multiply_keys<Half>(second, queries, Half);
        m.finish(out, sum, unscale, m.tile - 2);
        begin_weights();
    }
    make_weights();
    m.say(m.barriers.k_read());
    if (count == 1) sm90::barrier_wait(m.barriers.v_filled(), m.key_phase);
    m.take_turn();
    m.template multiply_values<kBlocks>(out, weights);
    if (m.group == 0 || !last) m.give_turn();  // the very last turn has no successor
    sm90::wgmma_wait<0>();
    sm90::settled(out);
    m.say(m.barriers.v_read());
    m.finish(out, sum, unscale, m.tile - 1);
    m.key_phase ^= 1;
}

template <int Width>
__global__ void __launch_bounds__(kThreads, 1)
    attention_sm90_kernel(const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap y,
                          const __grid_constant__ Plan g) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    using L = Layout<Width>;
    extern __shared__ uint8_t memory[];
    __shared__ Tiles shared_tiles;
    __shared__ Work work;
    uint32_t shared = (sm90::shared_address(memory) + 1023) & ~1023u;
    Barriers barriers{shared + L::kBarriers};
    if (threadIdx.x == 0) {
        barriers.init();
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    if (threadIdx.x == 32) {
        int blocks = static_cast<int>(gridDim.x);
        int64_t total = total_cost(g);
        shared_tiles = {walk_of(g, total, static_cast<int>(blockIdx.x), blocks), total, blocks};
    }
    __syncthreads();
    Tiles tiles = shared_tiles;
    // The same for all lanes, and known to be.
    int group = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 128 - 1, 0);
    if (group < 0) {
        sm90::give_registers<24>();
        int warp = static_cast<int>(threadIdx.x) / 32;
        if (threadIdx.x % 32 != 0) return;
        if (warp < 2) move_queries<Width>(g, &q, &y, shared, barriers, warp, tiles);
        if (warp == 2) load_keys<Width>(g, shared, barriers, tiles, &work);
    } else {
        sm90::take_registers<240>();
        if (tiles.done()) return;
        if (group == 1) sm90::named_arrive(1, 256);  // the first warpgroup has the first turn
        Multiplier<Width> m(shared, barriers, group);
        for (bool last = false; !last;) {
            sm90::barrier_wait(barriers.k_filled(), m.key_phase);
            int keys = work.keys, count = work.tiles;
            float unscale = work.unscale;
            last = work.last;
            switch (spans(keys)) {
                case 1: attend<Width, 32>(m, keys, count, g.factor, unscale, last); break;
                case 2: attend<Width, 64>(m, keys, count, g.factor, unscale, last); break;
                case 3: attend<Width, 96>(m, keys, count, g.factor, unscale, last); break;
                case 4: attend<Width, 128>(m, keys, count, g.factor, unscale, last); break;
                default:
                    if constexpr (L::kMaxKeys > 256)
                        attend<Width, 152>(m, keys, count, g.factor, unscale, last);
            }
        }
    }
#endif
}

}  // namespace sana::cuda::sm90_attention
