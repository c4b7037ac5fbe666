// The tensor core attention's tile sizes, and its online softmax on scores in the registers that the product leaves them in.
#pragma once

#include "ops/cuda/device/attention.cuh"
#include "ops/cuda/device/mma.cuh"

namespace sana::cuda {

constexpr float kLog2E = 1.4426950408889634f;

// For heads of up to Width columns; narrower ones are filled up with zeros in shared memory.
template <int Width, int Blocks16, int Warps, int Keys, int Residents>
struct AttentionShape {
    static constexpr int kWidth = Width, kBlocks = Blocks16, kKeys = Keys, kResidents = Residents;
    static constexpr int kThreads = Warps * 32, kWarpRows = Blocks16 * 16, kRows = Warps * kWarpRows;
    static constexpr int kPitch = (Width + 8) * 2;  // bytes
    static constexpr int kTile = Keys * kPitch;     // of k or v
    static constexpr int kBytes = kRows * kPitch + 4 * kTile;
    static_assert(Width % 16 == 0 && Keys % 16 == 0);
};

// One warp's running softmax; row 2 * block + half is query block * 16 + half * 8 + lane / 4.
template <class S>
struct QueryRows {
    float best[2 * S::kBlocks], sum[2 * S::kBlocks];  // sum: this lane's columns only
    float out[S::kBlocks][S::kWidth / 8][4];
};

template <class S>
using Scores = float[S::kBlocks][S::kKeys / 8][4];

// Calls f(score, row, column) for a lane's scores; column counts from the tile's first key.
template <class S, class F>
__device__ __forceinline__ void for_scores(Scores<S>& scores, F f) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < S::kKeys / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            int column = n * 8 + lane % 4 * 2 + e;
#pragma unroll
            for (int m = 0; m < S::kBlocks; ++m) {
                f(scores[m][n][e], m * 16 + lane / 4, column);
                f(scores[m][n][2 + e], m * 16 + 8 + lane / 4, column);
            }
        }
    }
}

// Scores of keys that a query does not see become -inf. `query` is the warp's first.
template <class T, class S>
__device__ __forceinline__ void hide(const AttentionProblem<T>& p, const KeySlots& slots, Scores<S>& scores,
                                     int query, int start) {
    if (p.bounded()) {
        for_scores<S>(scores, [&](float& score, int row, int column) {
            int slot = start + column;
            if (slot >= slots.last || !p.sees(query + row, slots.position(slot))) score = -INFINITY;
        });
    } else if (start + S::kKeys > slots.last) {
        for_scores<S>(scores, [&](float& score, int, int column) {
            if (start + column >= slots.last) score = -INFINITY;
        });
    }
}

// Brings the rows to the largest of their scores so far.
template <class S>
__device__ __forceinline__ void raise(QueryRows<S>& rows, const Scores<S>& scores, float factor) {
    float grown[2 * S::kBlocks];
    bool grew = false;
#pragma unroll
    for (int r = 0; r < 2 * S::kBlocks; ++r) {
        float best = rows.best[r];
#pragma unroll
        for (int n = 0; n < S::kKeys / 8; ++n) {
            best = fmaxf(best, fmaxf(scores[r / 2][n][r % 2 * 2], scores[r / 2][n][r % 2 * 2 + 1]));
        }
        best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, 1));
        best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, 2));
        grown[r] = best;
        grew |= best > rows.best[r];
    }
    if (!__any_sync(0xffffffffu, grew))
        return;  // seldom after the first tiles; a factor of 1 changes nothing
#pragma unroll
    for (int r = 0; r < 2 * S::kBlocks; ++r) {
        // Without a key so far -inf - -inf would be NaN.
        float shrink = grown[r] == -INFINITY ? 1.0f : exp2_fast((rows.best[r] - grown[r]) * factor);
        rows.best[r] = grown[r];
        rows.sum[r] *= shrink;
#pragma unroll
        for (int d = 0; d < S::kWidth / 8; ++d) {
            rows.out[r / 2][d][r % 2 * 2] *= shrink;
            rows.out[r / 2][d][r % 2 * 2 + 1] *= shrink;
        }
    }
}

// Turns scores into weights 2^(factor * (score - best)) times 2^14, the largest power that leaves fp16 room.
template <class S>
__device__ __forceinline__ void weigh(QueryRows<S>& rows, Scores<S>& scores, float factor) {
#pragma unroll
    for (int r = 0; r < 2 * S::kBlocks; ++r) {
        float offset = kHalfExponent - (rows.best[r] == -INFINITY ? 0.0f : rows.best[r]) * factor;
#pragma unroll
        for (int n = 0; n < S::kKeys / 8; ++n) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                float& score = scores[r / 2][n][r % 2 * 2 + e];
                score = exp2_fast(fmaf(score, factor, offset));
                rows.sum[r] += score;
            }
        }
    }
}

}  // namespace sana::cuda
