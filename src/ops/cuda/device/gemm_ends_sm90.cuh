// What follows the products of a tile of gemm_sm90.cuh: scales, bias, identity, activation, gate and residual of rows of eight
// columns, before their one rounding.
#pragma once

#include "ops/cuda/device/element.cuh"
#include "ops/cuda/device/sm90.cuh"

namespace sana::cuda::sm90_gemm {

constexpr int kRows = 128;  // rows of a tile

struct Plan {
    int row_tiles, y_rows, batch;  // tiles a sample
    int taps, before, tap_step;
    int channels, chunks;  // K = taps * channels, `chunks` stages a tap
    int row_clusters, column_tiles;
    int tokens, groups, per_group;  // of gates
    int x_rows;                     // rows a sample of x, for its scales
};

struct Ends {
    void* y;
    const void *bias, *identity, *gate, *residual;
    const float *x_scale, *w_scale;  // [batch * x_rows], [N]
    int64_t y_stride, identity_stride, gate_stride, residual_stride;
    int width;  // a multiple of 8
    Activation activation;
};

// What a lane finishes of a strip: 8 columns of two rows. Its operands are asked for one strip ahead, the first before the
// products, so that their latency passes behind other work.
struct Operands {
    uint4 identity[2], residual[2];  // bf16
};

// What belongs to whole columns of a tile: scale of w, bias and gate (1, 0 and 1 where there is none). A warpgroup asks for
// them before the products, two columns a thread, and puts them into shared memory behind them.
template <class In, int N>
struct Columns {
    float scale[2], bias[2], gate[2];

    // gate_row: the one that all rows share, or -1.
    __device__ __forceinline__ Columns(const Ends& e, int first_column, int gate_row) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            int c = first_column + static_cast<int>(threadIdx.x) % 128 + 128 * i;
            bool there = c < e.width && c < first_column + N;
            scale[i] = std::is_same_v<In, __nv_fp8_e4m3> && there ? e.w_scale[c] : 1.0f;
            bias[i] = e.bias != nullptr && there ? to_float(static_cast<const bf16_t*>(e.bias)[c]) : 0.0f;
            gate[i] = e.gate != nullptr && gate_row >= 0 && there
                          ? to_float(static_cast<const bf16_t*>(e.gate)[gate_row * e.gate_stride + c])
                          : 1.0f;
        }
    }

    __device__ __forceinline__ void share(float* columns) const {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            int c = static_cast<int>(threadIdx.x) % 128 + 128 * i;
            if (c >= N) continue;
            columns[c] = scale[i];
            columns[N + c] = bias[i];
            columns[2 * N + c] = gate[i];
        }
    }
};

// Two bf16 of one word.
__device__ __forceinline__ float2 unpacked(uint32_t pair) {
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

template <class F>
__device__ __forceinline__ void combine(float (&v)[8], uint4 other, F f) {
    uint32_t words[4] = {other.x, other.y, other.z, other.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        float2 o = unpacked(words[i]);
        v[2 * i] = f(v[2 * i], o.x);
        v[2 * i + 1] = f(v[2 * i + 1], o.y);
    }
}

// Activated: whether e.activation is other than none. Its code, made for every strip, would crowd the rest out of the
// instruction caches.
template <class In, bool Activated>
struct Finisher {
    const Ends& e;
    int rows[2], gate_rows[2], common_gate;  // common_gate: the row of all 64 rows of the warpgroup, or -1
    bool valid[2];

    __device__ Finisher(const Plan& g, const Ends& ends, int tile, int group_row, int warp_row) : e(ends) {
        int sample = tile / g.row_tiles, tile_row = (tile - sample * g.row_tiles) * kRows,
            first = tile_row + group_row + warp_row;
        auto gate_of = [&](int row) { return row / g.tokens * g.groups + row % g.tokens / g.per_group; };
        int group_first = sample * g.y_rows + min(tile_row + group_row, g.y_rows - 1),
            group_last = sample * g.y_rows + min(tile_row + group_row + 63, g.y_rows - 1);
        common_gate =
            sample < g.batch && gate_of(group_first) == gate_of(group_last) ? gate_of(group_first) : -1;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            int r = first + static_cast<int>(threadIdx.x) % 32 / 4 + 8 * j;
            valid[j] = r < g.y_rows && sample < g.batch;
            rows[j] = sample * g.y_rows + r;
            gate_rows[j] = gate_of(rows[j]);
        }
    }

    __device__ __forceinline__ static uint4 eight(const void* base, int64_t offset) {
        return *reinterpret_cast<const uint4*>(static_cast<const bf16_t*>(base) + offset);
    }

    __device__ __forceinline__ void fetch(Operands& o, int column) const {
        if (column >= e.width) return;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            if (!valid[j]) continue;
            if (e.identity != nullptr)
                o.identity[j] = eight(e.identity, rows[j] * e.identity_stride + column);
            if (e.residual != nullptr)
                o.residual[j] = eight(e.residual, rows[j] * e.residual_stride + column);
        }
    }

    // v: the sums of row j, in units of `scale` and of the columns' scales. columns: of these eight, N floats apart.
    template <int N>
    __device__ __forceinline__ void finish(const Operands& o, float (&v)[8], int j, int column, float scale,
                                           const float* columns) const {
        if (!valid[j] || column >= e.width) return;
        auto plus = [](float x, float z) { return x + z; };
        float c[8];
        if constexpr (std::is_same_v<In, __nv_fp8_e4m3>) {
            eight_of(columns, c);
#pragma unroll
            for (int i = 0; i < 8; ++i) v[i] = v[i] * scale * c[i];
        }
        eight_of(columns + N, c);
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] += c[i];
        if (e.identity != nullptr) combine(v, o.identity[j], plus);
        if constexpr (Activated) {
#pragma unroll
            for (int i = 0; i < 8; ++i) v[i] = activated(v[i], e.activation);
        }
        if (e.gate != nullptr) {
            if (common_gate >= 0) {
                eight_of(columns + 2 * N, c);
#pragma unroll
                for (int i = 0; i < 8; ++i) v[i] *= c[i];
            } else {
                combine(v, eight(e.gate, gate_rows[j] * e.gate_stride + column),
                        [](float x, float z) { return x * z; });
            }
        }
        if (e.residual != nullptr) combine(v, o.residual[j], plus);
        store<8>(static_cast<bf16_t*>(e.y) + rows[j] * e.y_stride + column, v);
    }

    __device__ __forceinline__ static void eight_of(const float* from, float (&out)[8]) {
        *reinterpret_cast<float4*>(&out[0]) = reinterpret_cast<const float4*>(from)[0];
        *reinterpret_cast<float4*>(&out[4]) = reinterpret_cast<const float4*>(from)[1];
    }
};

}  // namespace sana::cuda::sm90_gemm
