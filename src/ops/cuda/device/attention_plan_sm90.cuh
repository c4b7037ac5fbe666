// Which tiles of queries the blocks of the kernel in attention_sm90.cuh make, and in which order. A head's part of a row of q
// or y is short (224 bytes), and memory moves longer pieces: blocks that work at the same time should have the same rows of
// all heads. So each head's tiles are cut into parts of the time that a block has, and blocks that have one each begin them
// together; what is left of all heads is shared out among the other blocks. Blocks share time, not tiles, as samples differ
// in keys.
#pragma once

#include <cstdint>

namespace sana::cuda::sm90_attention {

constexpr int kSpan = 64;  // columns of K or keys of V in a row of shared memory

// Spans that hold so many; never none, so that a sample without keys takes no path of its own.
__host__ __device__ constexpr int spans(int count) {
    return count <= kSpan ? 1 : (count + kSpan - 1) / kSpan;
}

struct Plan {
    // Operands in memory: for each sample and key head K, then V, in as many spans as L keys need, `size` bytes in all.
    const uint8_t* keys;
    int64_t size;
    const float* largest;                    // [B,E] of |v|: V is v * scale_to_half(largest)
    const int32_t* kept;                     // as in AttentionProblem
    int batch, heads, share, length, tiles;  // length: L; tiles of the queries of a head
    float factor;                            // scale * log2(e): scores become exponents of 2

    __device__ int kept_keys(int sample) const {
        return kept == nullptr ? length : kept[static_cast<int64_t>(sample) * (length + 1)];
    }
    __device__ int key_head(int sample, int head) const { return sample * (heads / share) + head / share; }
    // Time of a tile, in units of the products with a key: beside them there are q and y to move.
    __device__ int64_t cost(int sample) const { return spans(kept_keys(sample)) * kSpan + 128; }
};

// Tiles first, first + 1, .. of one head that a block has in a row.
struct Run {
    int sample, head, first, count;
};

// A block's runs. Of each head of `sample` it counts the tiles from `from` on, `per_head` of them.
struct Walk {
    int sample, from, per_head;
    int at, left;  // the next tile, counted through the sample's heads; how many tiles there are from it on

    __device__ bool done() const { return left == 0; }
    __device__ Run next(const Plan& g, int64_t total, int blocks) {
        while (at == g.heads * per_head) {
            ++sample;
            take_rest(g, total, blocks);
        }
        int head = at / per_head, offset = at - head * per_head;
        Run run{sample, head, from + offset, min(left, per_head - offset)};
        at += run.count;
        left -= run.count;
        return run;
    }

    // Where part `part` of a head begins.
    __device__ static int part_begin(const Plan& g, int sample, int64_t part, int64_t total, int blocks) {
        int64_t time = g.cost(sample) * blocks;
        return static_cast<int>((part * total + time / 2) / time);
    }
    __device__ static int64_t parts(const Plan& g, int sample, int64_t total, int blocks) {
        return g.tiles * g.cost(sample) * blocks / total;
    }
    __device__ void take_rest(const Plan& g, int64_t total, int blocks) {
        from = part_begin(g, sample, parts(g, sample, total, blocks), total, blocks);
        per_head = g.tiles - from;
        at = 0;
    }
};

__device__ inline int64_t total_cost(const Plan& g) {
    int64_t total = 0;
    for (int b = 0; b < g.batch; ++b) total += g.cost(b) * g.heads * g.tiles;
    return total;
}

// total: total_cost(g).
__device__ inline Walk walk_of(const Plan& g, int64_t total, int block, int blocks) {
    int64_t rest = 0;
    int first = 0;  // block of those that share the rest
    for (int b = 0; b < g.batch; ++b) {
        int parts = static_cast<int>(Walk::parts(g, b, total, blocks)), index = block - first;
        if (index < parts * g.heads) {
            int part = index / g.heads, begin = Walk::part_begin(g, b, part, total, blocks),
                count = Walk::part_begin(g, b, part + 1, total, blocks) - begin;
            return {b, begin, count, index % g.heads * count, count};
        }
        first += parts * g.heads;
        rest += g.cost(b) * g.heads * (g.tiles - Walk::part_begin(g, b, parts, total, blocks));
    }
    // The tiles whose time begins in this block's share of the rest.
    Walk walk{};
    int64_t begin = rest * (block - first) / (blocks - first),
            end = rest * (block - first + 1) / (blocks - first);
    for (int b = 0; b < g.batch; ++b) {
        Walk of{b};
        of.take_rest(g, total, blocks);
        int64_t cost = g.cost(b), tiles = static_cast<int64_t>(g.heads) * of.per_head;
        auto before = [&](int64_t time) {
            return static_cast<int>(min(tiles, max(int64_t{0}, (time + cost - 1) / cost)));
        };
        int at = before(begin), count = before(end) - at;
        if (count > 0 && walk.left == 0) {
            walk = of;
            walk.at = at;
        }
        walk.left += count;
        begin -= tiles * cost;
        end -= tiles * cost;
    }
    return walk;
}

}  // namespace sana::cuda::sm90_attention
