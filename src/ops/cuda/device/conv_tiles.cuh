// What tiles of conv_halo (conv_halo.cuh) are, and what becomes of their sums.
#pragma once

#include "ops/cuda/device/element.cuh"

namespace sana::cuda::halo {

constexpr int kPositions = 256;       // of a tile: 16x16, 8x32 or 32x8
constexpr int kHalo = 34 * 10;        // positions of the largest box
constexpr int kThreads = 384;         // a warpgroup of loaders, two of multipliers
constexpr int kStrip = 32, kPad = 4;  // columns finished at once, and the pad that keeps banks apart
constexpr int kSharedLimit = 227 * 1024;

struct Grid {
    int tiles[2];          // of a frame: columns, rows
    int box[2], box_log;   // positions of a tile; log2(box[0] / 8)
    int pitch, box_bytes;  // positions of a row of the box with halo; bytes of the whole
    int taps[3], before[3];
    int size[4];                             // of y: columns, rows, frames, samples
    int past_size, first_frame, last_frame;  // frames outside the latter two are those
    int chunks, channels;
    int column_tiles;
    int scale;     // 2: the first quarter of the column tiles makes the upper left of each 2 x 2 results
    bool reflect;  // outside of a frame, by one row or column, lies what is as far inside its border
    int positions, group;  // tiles of all frames and samples; places that are neighbours in time
};

struct Ends {
    void* y;
    const void *bias, *residual;
    int width;
};

// Where a tile begins: the first of its positions.
struct Place {
    int column, row, frame, sample;
    int right, below;  // which of the results of a position, when there are 2 x 2
};

// Of the tile that a block of a cluster of two makes for an index: columns of weights first, then positions, group by group.
__device__ __forceinline__ Place place_of(const Grid& g, int index, uint32_t rank) {
    int position = index / g.column_tiles * 2 + static_cast<int>(rank);
    int places = g.tiles[0] * g.tiles[1], per_sample = places * g.size[2];
    Place p;
    p.sample = position / per_sample;
    int rest = position - p.sample * per_sample, first = rest / (g.group * g.size[2]) * g.group;
    int together = min(g.group, places - first);
    rest -= first * g.size[2];
    p.frame = rest / together;
    int tile = first + rest % together;
    p.column = tile % g.tiles[0] * g.box[0];
    p.row = tile / g.tiles[0] * g.box[1];
    int phase = g.scale == 1 ? 0 : index % g.column_tiles / (g.column_tiles / 4);
    p.right = phase % 2;
    p.below = phase / 2;
    return p;
}

// The results of one 8 x 8 block of positions, of which a warp has two rows of eight, a lane one position of each.
template <class T>
struct Finisher {
    const Ends& e;
    int rows[2];
    bool valid[2];

    __device__ Finisher(const Grid& g, const Ends& ends, const Place& p, int block) : e(ends) {
        int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) % 128 / 32;
        int column = p.column + (block & ((1 << g.box_log) - 1)) * 8 + lane / 4;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            int row = p.row + (block >> g.box_log) * 8 + warp * 2 + j;
            valid[j] = column < g.size[0] && row < g.size[1] && p.sample < g.size[3];
            int line = (p.sample * g.size[2] + p.frame) * g.size[1] + row;
            rows[j] = ((line * g.scale + p.below) * g.size[0] + column) * g.scale + p.right;
        }
    }

    __device__ __forceinline__ void fetch(uint4 (&residual)[2], int column) const {
        if (e.residual == nullptr || column >= e.width) return;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            if (valid[j])
                residual[j] = *reinterpret_cast<const uint4*>(static_cast<const T*>(e.residual) +
                                                              int64_t{rows[j]} * e.width + column);
        }
    }

    __device__ __forceinline__ void add(float (&v)[8], uint4 other) const {
        const T* values = reinterpret_cast<const T*>(&other);
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] += to_float(values[i]);
    }

    __device__ __forceinline__ void finish(float (&v)[8], uint4 residual, int j, int column) const {
        if (!valid[j] || column >= e.width) return;
        if (e.bias != nullptr)
            add(v, *reinterpret_cast<const uint4*>(static_cast<const T*>(e.bias) + column));
        if (e.residual != nullptr) add(v, residual);
        store<8>(static_cast<T*>(e.y) + int64_t{rows[j]} * e.width + column, v);
    }
};

// strip: shared memory of this warp, through which sums in wgmma's layout become rows of 8 columns a lane.
template <class T, int N>
__device__ __forceinline__ void finish_block(const Finisher<T>& finisher, const float (&sums)[N / 2],
                                             int first_column, float* strip) {
    int lane = static_cast<int>(threadIdx.x) % 32;
    constexpr int kPitch = kStrip + kPad;
    uint4 residual[2], next[2];
    finisher.fetch(residual, first_column + lane % 4 * 8);
#pragma unroll
    for (int start = 0; start < N; start += kStrip) {
        __syncwarp();
#pragma unroll
        for (int pair = 0; pair < kStrip / 8; ++pair) {
            const float* v = sums + (start / 8 + pair) * 4;
            float* to = strip + (lane / 4) * kPitch + pair * 8 + lane % 4 * 2;
            *reinterpret_cast<float2*>(to) = make_float2(v[0], v[1]);
            *reinterpret_cast<float2*>(to + 8 * kPitch) = make_float2(v[2], v[3]);
        }
        __syncwarp();
        int column = first_column + start + lane % 4 * 8;
        asm volatile("" : "+r"(column));  // else addresses of all strips are made, and kept, at once
        if (start + kStrip < N) finisher.fetch(next, column + kStrip);
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            float v[8];
            const float4* from =
                reinterpret_cast<const float4*>(strip + (lane / 4 + 8 * j) * kPitch + lane % 4 * 8);
            *reinterpret_cast<float4*>(&v[0]) = from[0];
            *reinterpret_cast<float4*>(&v[4]) = from[1];
            finisher.finish(v, residual[j], j, column);
        }
        residual[0] = next[0];
        residual[1] = next[1];
    }
}

// Eight columns at most, of which a lane has two, and width says how many count; no residual.
template <class T>
__device__ __forceinline__ void finish_narrow(const Finisher<T>& finisher, const float (&sums)[4]) {
    const Ends& e = finisher.e;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        int column = static_cast<int>(threadIdx.x) % 4 * 2 + i % 2;
        if (!finisher.valid[i / 2] || column >= e.width) continue;
        float bias = e.bias != nullptr ? to_float(static_cast<const T*>(e.bias)[column]) : 0.0f;
        static_cast<T*>(e.y)[int64_t{finisher.rows[i / 2]} * e.width + column] =
            from_float<T>(sums[i] + bias);
    }
}

}  // namespace sana::cuda::halo
