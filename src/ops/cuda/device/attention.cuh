// What the two attention kernels share: the problem as they see it, and which keys a tile of queries has to look at.
//   o_i = sum_j softmax_j(cap(scale * q_i . k_j)) v_j      q [B,N,A*D], k and v [B,L,E*D], rows strided
// Both go over the keys once with an online softmax: m, the largest score so far; s = sum_j exp(score_j - m);
// o = sum_j exp(score_j - m) v_j; when m grows, s and o are multiplied by exp(m_old - m_new); y = o / s at the end.
// NaN is kept: fmaxf() leaves a NaN out of m, but its weight, and with it s, is NaN.
#pragma once

#include "ops/attention.h"
#include "ops/cuda/device/element.cuh"

namespace sana::cuda {

template <class T>
struct AttentionProblem {
    const T *q, *k, *v;
    T* y;
    int64_t q_stride, k_stride, v_stride, y_stride;
    const int32_t*
        kept;  // [B, 1 + L]: how many keys the mask keeps, and their positions in order; null: all of them
    int queries, keys, heads, share, width;  // N, L, A, A/E, D
    float scale, cap;
    int window;
    bool causal;
    const float* v_largest =
        nullptr;  // [B,E] of v that was brought into the range of fp16; null: v is as it came

    __device__ bool bounded() const { return causal || window > 0; }
    __device__ bool sees(int query, int position) const {
        return (!causal || position <= query) && (window == 0 || query - position < window);
    }
};

// The keys that some query of a tile may see. Kernels count in slots: the keys that the mask keeps, in order. Keys that it
// hides are never read, so what they hold does not matter, and a short prompt costs what it is long.
struct KeySlots {
    const int32_t* positions;  // null: slot = position
    int first, last;
    __device__ int position(int slot) const { return positions == nullptr ? slot : positions[slot]; }
};

// First slot whose position is not below `position`.
__device__ inline int slot_of(const int32_t* positions, int count, int position) {
    int low = 0;
    while (low < count) {
        int middle = (low + count) / 2;
        if (positions[middle] < position) {
            low = middle + 1;
        } else {
            count = middle;
        }
    }
    return low;
}

// For queries [start, end) of sample b.
template <class T>
__device__ KeySlots key_slots(const AttentionProblem<T>& p, int b, int start, int end) {
    KeySlots out{nullptr, p.window > 0 ? max(0, start - p.window + 1) : 0,
                 p.causal ? min(p.keys, end) : p.keys};
    if (p.kept == nullptr) return out;
    const int32_t* row = p.kept + static_cast<int64_t>(b) * (p.keys + 1);
    out.positions = row + 1;
    out.first = p.window > 0 ? slot_of(out.positions, row[0], out.first) : 0;
    out.last = p.causal ? slot_of(out.positions, row[0], out.last) : row[0];
    return out;
}

// What a block works on: queries [start, start + rows) of one head; the grid has a block for each tile, tiles fastest, so
// that blocks which run together read the same keys.
struct QueryTile {
    int start, head, sample;
};
__device__ inline QueryTile query_tile(int queries, int rows, int heads) {
    int tiles = (queries + rows - 1) / rows, task = static_cast<int>(blockIdx.x) / tiles;
    return {static_cast<int>(blockIdx.x) % tiles * rows, task % heads, task / heads};
}

template <class T>
unsigned query_blocks(const AttentionProblem<T>& p, int64_t batch, int rows) {
    int64_t blocks = (p.queries + rows - 1) / rows * batch * p.heads;
    check(blocks <= INT32_MAX, "attention: ", blocks, " tiles of queries are more than one launch can hold");
    return static_cast<unsigned>(blocks);
}

// v of bf16 as fp16 without loss, for the products of the tensor core kernel: what p refers to afterwards.
struct HalfValues {
    Tensor v, largest;
};
HalfValues half_values(AttentionProblem<bf16_t>& p, int64_t batch, Device device);

// The tensor core kernel (attention_mma.cu). False when it does not take the problem: it needs rows and heads in 16-byte
// vectors, D <= 384 and a positive scale.
template <class T>
bool attention_by_mma(AttentionProblem<T> p, int64_t batch, Device device);

// The kernel for Hopper's tensor cores (attention_sm90.cu), for texts. False when it does not take the problem: it needs such
// a card, rows in 16-byte vectors, D of 64, 112 or 128, 1 <= L <= 304 (256 where D is 128), a positive scale; no causal order,
// window or cap.
bool attention_by_wgmma(const AttentionProblem<bf16_t>& p, int64_t batch, Device device);

}  // namespace sana::cuda
