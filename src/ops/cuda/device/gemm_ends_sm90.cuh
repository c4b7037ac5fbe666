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

constexpr int kStrip = 32;  // columns finished at once

// Of a strip, eight columns of two rows: lane c of four neighbours has the columns 8c .. 8c + 7.
struct Operands {
    uint4 identity[2], residual[2];  // bf16
};

// What belongs to whole columns of a tile: scale of w, bias and gate (1, 0 and 1 where there is none). A warpgroup asks for
// them before the products, two columns a thread, and puts them into shared memory behind them.
template <class In, int N>
struct Columns {
    float scale[2];
    bf16_t bias[2], gate[2];

    // gate_row: the one that all rows share, or -1.
    __device__ __forceinline__ Columns(const Ends& e, int first_column, int gate_row) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            int c = first_column + static_cast<int>(threadIdx.x) % 128 + 128 * i;
            bool there = c < e.width && c < first_column + N;
            scale[i] = 1;
            bias[i] = __ushort_as_bfloat16(0);
            gate[i] = __ushort_as_bfloat16(0x3f80);  // 1
            if (std::is_same_v<In, __nv_fp8_e4m3> && there) scale[i] = e.w_scale[c];
            if (e.bias != nullptr && there) bias[i] = static_cast<const bf16_t*>(e.bias)[c];
            if (e.gate != nullptr && gate_row >= 0 && there)
                gate[i] = static_cast<const bf16_t*>(e.gate)[gate_row * e.gate_stride + c];
        }
    }

    __device__ __forceinline__ void share(float* columns) const {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            int c = static_cast<int>(threadIdx.x) % 128 + 128 * i;
            if (c >= N) continue;
            columns[c] = scale[i];
            columns[N + c] = to_float(bias[i]);
            columns[2 * N + c] = to_float(gate[i]);
        }
    }
};

// Two bf16 of one word.
__device__ __forceinline__ float2 unpacked(uint32_t pair) {
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

// Of two words, the one that a lane and its neighbour at `distance` exchange: the first where the lane is the second of the
// two, else the second.
__device__ __forceinline__ void exchange(uint32_t& first, uint32_t& second, bool is_second, int distance) {
    uint32_t got = __shfl_xor_sync(0xffffffffu, is_second ? first : second, distance);
    first = is_second ? got : first;
    second = is_second ? second : got;
}

// Four words of four neighbouring lanes, turned over: word i of lane c becomes word c of lane i. Between vectors of eight
// columns and the pairs of columns that wgmma leaves in a lane.
__device__ __forceinline__ void turn(uint32_t (&words)[4]) {
    bool odd = (threadIdx.x & 1) != 0, upper = (threadIdx.x & 2) != 0;
    exchange(words[0], words[1], odd, 1);
    exchange(words[2], words[3], odd, 1);
    exchange(words[0], words[2], upper, 2);
    exchange(words[1], words[3], upper, 2);
}

// 16 bytes to memory where `condition` holds, without a branch.
__device__ __forceinline__ void store_if(bool condition, void* to, const uint32_t (&words)[4]) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %0, 0;\n@p st.global.v4.b32 [%1], {%2, %3, %4, %5};\n}\n" ::"r"(
            static_cast<int>(condition)),
        "l"(to), "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3])
        : "memory");
}

__device__ __forceinline__ void turned(const uint4& vector, uint32_t (&words)[4]) {
    words[0] = vector.x;
    words[1] = vector.y;
    words[2] = vector.z;
    words[3] = vector.w;
    turn(words);
}

// Activated: whether e.activation is other than none. Its code, made for every strip, would crowd the rest out of the
// instruction caches. Identity: whether there may be one.
template <class In, int N, bool Activated, bool Identity>
struct Finisher {
    // Strips whose operands are on their way at once; registers do not hold more.
    static constexpr bool kScaled = std::is_same_v<In, __nv_fp8_e4m3>;
    static constexpr int kStrips = N / kStrip, kAhead = Identity ? std::min(kStrips, 3) : kStrips;

    const Plan& g;
    const Ends& e;
    int rows[2], common_gate;  // common_gate: the row of all 64 rows of the warpgroup, or -1
    bool valid[2];
    int column;  // the first of this lane
    Operands operands[kAhead];

    // The warpgroup begins group_row rows, this warp warp_row more, behind row tile_row of a sample.
    __device__ __forceinline__ Finisher(const Plan& plan, const Ends& ends, int sample, int tile_row,
                                        int group_row, int warp_row, int first_column)
        : g(plan), e(ends), common_gate(0), column(first_column + static_cast<int>(threadIdx.x) % 4 * 8) {
        if (e.gate != nullptr) {
            int start = tile_row + group_row, first = gate_of(sample * g.y_rows + min(start, g.y_rows - 1)),
                last = gate_of(sample * g.y_rows + min(start + 63, g.y_rows - 1));
            common_gate = sample < g.batch && first == last ? first : -1;
        }
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            int r = tile_row + group_row + warp_row + static_cast<int>(threadIdx.x) % 32 / 4 + 8 * j;
            valid[j] = r < g.y_rows && sample < g.batch;
            rows[j] = sample * g.y_rows + r;
        }
    }

    __device__ __forceinline__ int gate_of(int row) const {
        return row / g.tokens * g.groups + row % g.tokens / g.per_group;
    }

    __device__ __forceinline__ static uint4 eight(const void* base, int64_t offset) {
        return *reinterpret_cast<const uint4*>(static_cast<const bf16_t*>(base) + offset);
    }

    // What is not there counts as zero.
    __device__ __forceinline__ void fetch(int strip) {
        Operands& o = operands[strip % kAhead];
        bool inside = column + strip * kStrip < e.width;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            auto ask = [&](uint4& to, const void* from, int64_t stride) {
                to = make_uint4(0, 0, 0, 0);
                if (from != nullptr && inside && valid[j])
                    to = eight(from, rows[j] * stride + column + strip * kStrip);
            };
            if constexpr (Identity) ask(o.identity[j], e.identity, e.identity_stride);
            ask(o.residual[j], e.residual, e.residual_stride);
        }
    }

    __device__ __forceinline__ void begin() {
#pragma unroll
        for (int strip = 0; strip < kAhead; ++strip) fetch(strip);
    }

    // sums in units of the rows' scales; columns: of the tile (see Columns).
    __device__ __forceinline__ void finish(float (&sums)[N / 2], const float (&scale)[2],
                                           const float* columns) {
        if (common_gate >= 0) {
            finish_strips<true>(sums, scale, columns);
        } else {
            finish_strips<false>(sums, scale, columns);
        }
    }

private:
    // Without a branch within a strip, so that the latencies of its steps overlap. Common: all rows have the columns' gate.
    template <bool Common>
    __device__ __forceinline__ void finish_strips(float (&sums)[N / 2], const float (&scale)[2],
                                                  const float* columns) {
        int pair = static_cast<int>(threadIdx.x) % 4 * 2;  // of this lane's columns in every eight
        int gate_rows[2] = {};
        if constexpr (!Common) {
            gate_rows[0] = gate_of(rows[0]);
            gate_rows[1] = gate_of(rows[1]);
        }
#pragma unroll
        for (int strip = 0; strip < kStrips; ++strip) {
            const Operands& o = operands[strip % kAhead];
            float2 of_columns[3][4];
#pragma unroll
            for (int which = kScaled ? 0 : 1; which < (Common ? 3 : 2); ++which) {
#pragma unroll
                for (int p = 0; p < 4; ++p) {
                    of_columns[which][p] =
                        *reinterpret_cast<const float2*>(columns + which * N + strip * kStrip + p * 8 + pair);
                }
            }
            int first = column + strip * kStrip;
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                uint32_t identity[4], residual[4], out[4];
                if constexpr (Identity) turned(o.identity[j], identity);
                turned(o.residual[j], residual);
#pragma unroll
                for (int p = 0; p < 4; ++p) {
                    const float* sum = sums + (strip * 4 + p) * 4 + 2 * j;
                    float2 v = make_float2(sum[0], sum[1]);
                    if constexpr (kScaled) {
                        float2 c = of_columns[0][p];
                        v = make_float2(v.x * scale[j] * c.x, v.y * scale[j] * c.y);
                    }
                    v = plus(v, of_columns[1][p]);
                    if constexpr (Identity) v = plus(v, unpacked(identity[p]));
                    if constexpr (Activated)
                        v = make_float2(activated(v.x, e.activation), activated(v.y, e.activation));
                    float2 gate = of_columns[2][p];
                    if constexpr (!Common)
                        gate = gate_at(gate_rows[j], valid[j], strip * kStrip + p * 8 + pair - pair * 4);
                    v = plus(make_float2(v.x * gate.x, v.y * gate.y), unpacked(residual[p]));
                    __nv_bfloat162 rounded = __floats2bfloat162_rn(v.x, v.y);
                    out[p] = *reinterpret_cast<const uint32_t*>(&rounded);
                }
                turn(out);
                store_if(valid[j] && first < e.width,
                         static_cast<bf16_t*>(e.y) + rows[j] * e.y_stride + first, out);
            }
            if (strip + kAhead < kStrips) fetch(strip + kAhead);
        }
    }

    __device__ __forceinline__ static float2 plus(float2 x, float2 z) {
        return make_float2(x.x + z.x, x.y + z.y);
    }

    // Of a row of its own, `from` columns behind this lane's first.
    __device__ __forceinline__ float2 gate_at(int gate_row, bool row_valid, int from) const {
        int c = column + from;
        if (!row_valid || c >= e.width) return make_float2(1, 1);
        return unpacked(*reinterpret_cast<const uint32_t*>(static_cast<const bf16_t*>(e.gate) +
                                                           gate_row * e.gate_stride + c));
    }
};

}  // namespace sana::cuda::sm90_gemm
