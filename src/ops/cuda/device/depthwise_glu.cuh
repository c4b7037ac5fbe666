// depthwise_glu: [a, g] = depthwise3x3(silu(x)) + bias, y = a * silu(g).
// A thread keeps two channels of both halves (c, c + F) and six output rows, and walks along the columns: a column of eight
// input rows is loaded one step ahead, takes its SiLU once, and adds to the sums of three output columns in registers; the
// column that is complete leaves. x is read 8/6 times (the halo comes from L2), y written once:
// bytes = 2 * (2F + F) * positions; about 23 instructions and 2.1 special functions a value of x keep the units that issue
// and evaluate them as busy as memory.
// To E4M3 gates need few bits, and what is constant is in the weights: those of gates are halved, the others divided by the
// scale of the codes: 19 instructions, 1.8 special functions.
#pragma once

#include "ops/cuda/device/fast_math.cuh"
#include "ops/cuda/device/rows.cuh"

namespace sana::cuda::glu {

constexpr int kRowsOut = 6, kRowsIn = kRowsOut + 2;
constexpr int kGluHeadroom = 5;  // log2 of what the sampled maximum may be exceeded by (ops/glu_fp8.h)

// Halves of two values that are 4 bytes.
template <class T>
__device__ __forceinline__ float2 halves(uint32_t x) {
    if constexpr (std::is_same_v<T, bf16_t>) {
        __nv_bfloat162 pair;
        memcpy(&pair, &x, 4);
        pair = __hmul2(pair, {0.5f, 0.5f});  // exact
        memcpy(&x, &pair, 4);
        return {__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000u)};
    } else {
        __half2 pair;
        memcpy(&pair, &x, 4);
        float2 values = __half22float2(pair);
        return {0.5f * values.x, 0.5f * values.y};
    }
}

// Two SiLUs with one reciprocal, as the special function unit is what they wait for: 1/a = b / (a b). The exponents are
// bounded so that a b stays finite; beyond the bound the result is below 1e-17 of x.
__device__ __forceinline__ void silu_pair(float& x0, float& x1) {
    constexpr float kLog2e = 1.4426950408889634f, kLimit = 58.0f;
    float a = 1.0f + exp2_fast(fminf(x0 * -kLog2e, kLimit)),
          b = 1.0f + exp2_fast(fminf(x1 * -kLog2e, kLimit));
    float r = reciprocal_fast(a * b);
    x0 *= r * b;
    x1 *= r * a;
}

struct Frames {
    int height, width, inner;  // inner: F
};

// Where results go: pairs of channels of a position, in fp32. kQuick: gates come halved, and need no more bits than codes have.
template <class T>
struct ToDense {
    static constexpr bool kQuick = false;
    T* y;  // the frame, later
    // What values, and so their weights, are multiplied by.
    __device__ __forceinline__ float begin(int64_t frame) {
        y += frame;
        return 1;
    }
    __device__ __forceinline__ void operator()(uint32_t at, const float (&pair)[2]) const {
        store<2>(y + at, pair);
    }
    __device__ __forceinline__ void finish() const {}
};

// To codes, by the scale that the largest magnitude asks for.
struct ToCodes {
    static constexpr bool kQuick = true;
    uint8_t* y;
    const uint32_t* largest;
    __device__ __forceinline__ float begin(int64_t frame) {
        y += frame;
        return power_of_two(*largest, kGluHeadroom).inverse;
    }
    __device__ __forceinline__ void operator()(uint32_t at, const float (&pair)[2]) const {
        *reinterpret_cast<uint16_t*>(y + at) =
            __nv_cvt_float2_to_fp8x2(make_float2(pair[0], pair[1]), __NV_SATFINITE, __NV_E4M3);
    }
    __device__ __forceinline__ void finish() const {}
};

// Nowhere: only the largest magnitude is wanted.
struct ToLargest {
    static constexpr bool kQuick = true;
    uint32_t* largest;
    uint32_t seen;
    __device__ __forceinline__ float begin(int64_t) {
        seen = 0;
        return 1;
    }
    __device__ __forceinline__ void operator()(uint32_t, const float (&pair)[2]) {
        seen = max(seen, max(__float_as_uint(pair[0]) & 0x7fffffffu, __float_as_uint(pair[1]) & 0x7fffffffu));
    }
    __device__ __forceinline__ void finish() const { atomicMax(largest, seen); }
};

using Column =
    float[kRowsIn][4];  // of input rows, halved: channels c, c + 1, and c + F, c + F + 1, the gates

template <class T>
__device__ __forceinline__ void unpack(const uint32_t (&raw)[kRowsIn][2], Column& v) {
#pragma unroll
    for (int r = 0; r < kRowsIn; ++r) {
        float2 a = halves<T>(raw[r][0]), g = halves<T>(raw[r][1]);
        v[r][0] = a.x;
        v[r][1] = a.y;
        v[r][2] = g.x;
        v[r][3] = g.y;
    }
}

// A thread's columns straight from memory, one ahead in registers.
template <class T>
struct FromMemory {
    const uint8_t* x;    // the frame
    uint32_t at;         // where the next column begins in the strip's first row, in bytes
    uint32_t row, half;  // from one row to the next, from one half of the channels to the other
    int last;            // the last column that is wanted
    bool above, below;  // whether the first and the last of the input rows exist; those that do not stay zero
    uint32_t raw[kRowsIn][2];

    __device__ __forceinline__ void fetch(int col) {
#pragma unroll
        for (int r = 0; r < kRowsIn; ++r) {
            if ((r == 0 && !above) || (r == kRowsIn - 1 && !below)) continue;
            uint32_t from = at + static_cast<uint32_t>(r - 1) * row;
            raw[r][0] = *reinterpret_cast<const uint32_t*>(x + from);
            raw[r][1] = *reinterpret_cast<const uint32_t*>(x + (from + half));
        }
        if (col < last) at += 2 * half;
    }

    template <int>
    __device__ __forceinline__ void take(int col, Column& v) {
        unpack<T>(raw, v);
        fetch(col + 1);
    }
};

// Channels c, c + 1 of both halves of a strip of rows. From: where columns of x come from, in order: take<Turn>(col, v), Turn
// counting modulo 3.
template <class From, class To>
struct Walk {
    From source;
    To to;
    uint32_t out;                // where the next column of y begins in the strip's first row
    uint32_t out_row, out_step;  // of y from one row, one column to the next
    int from, end, last, width;  // columns that are wanted, the last one that they need, those that there are
    float w[9][4], start[4];

    using Sums = float[kRowsOut][4];

    // Adds a column to the sums of its left neighbour (which it completes), its own and its right neighbour's.
    template <int Turn>
    __device__ __forceinline__ void add(int col, Sums& left, Sums& own, Sums& right) {
        Column v;
        source.template take<Turn>(col, v);
#pragma unroll
        for (int r = 0; r < kRowsIn; ++r) {
#pragma unroll
            for (int c = 0; c < 4; ++c) v[r][c] = silu_of_half(v[r][c]);
        }
#pragma unroll
        for (int r = 0; r < kRowsOut; ++r) {
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                right[r][c] = start[c];
#pragma unroll
                for (int tap = 0; tap < 3; ++tap) {
                    left[r][c] += v[r + tap][c] * w[tap * 3 + 2][c];
                    own[r][c] += v[r + tap][c] * w[tap * 3 + 1][c];
                    right[r][c] += v[r + tap][c] * w[tap * 3][c];
                }
            }
        }
        if (col > from) emit(left);
    }

    __device__ __forceinline__ void emit(Sums& sums) {
#pragma unroll
        for (int r = 0; r < kRowsOut; ++r) {
            float g0 = sums[r][2], g1 = sums[r][3];
            if constexpr (To::kQuick) {
                g0 = silu_of_half(g0);
                g1 = silu_of_half(g1);
            } else {
                silu_pair(g0, g1);
            }
            to(out + r * out_row, {sums[r][0] * g0, sums[r][1] * g1});
        }
        out += out_step;
    }

    __device__ __forceinline__ void finish(Sums& sums) {
        if (end == width) emit(sums);
        to.finish();
    }

    // From column `col` to the last one, of the strip whose first row is `first`.
    template <class T>
    __device__ __forceinline__ void run(const T* weight, const T* bias, const Frames& f, int first,
                                        int channel, int col, float factor) {
        out_step = static_cast<uint32_t>(f.inner);
        out_row = static_cast<uint32_t>(f.width * f.inner);
        out = static_cast<uint32_t>((first * f.width + from) * f.inner + channel);
        auto both = [&](const T* row, float(&values)[4]) {
            load<2>(row + channel, reinterpret_cast<float(&)[2]>(values[0]));
            load<2>(row + channel + f.inner, reinterpret_cast<float(&)[2]>(values[2]));
#pragma unroll
            for (int c = 0; c < 4; ++c) values[c] *= c < 2 ? factor : To::kQuick ? 0.5f : 1.0f;
        };
#pragma unroll
        for (int tap = 0; tap < 9; ++tap) both(weight + static_cast<int64_t>(tap) * 2 * f.inner, w[tap]);
#pragma unroll
        for (int c = 0; c < 4; ++c) start[c] = 0;
        if (bias != nullptr) both(bias, start);

        Sums a, b, c;
#pragma unroll
        for (int r = 0; r < kRowsOut; ++r) {
#pragma unroll
            for (int i = 0; i < 4; ++i) a[r][i] = b[r][i] = start[i];
        }
        // The sums take turns instead of being moved.
        for (;;) {
            add<0>(col, a, b, c);
            if (++col > last) return finish(b);
            add<1>(col, b, c, a);
            if (++col > last) return finish(c);
            add<2>(col, c, a, b);
            if (++col > last) return finish(a);
        }
    }
};

// Which strips of which frames a launch walks over, and how many columns a block has.
struct Part {
    int64_t first_frame, frame_step;
    int first_row, columns, pieces;  // columns * pieces >= width
};

// The last strip ends with the frame: what it has in common with the one before is made twice, and is the same.
__device__ __forceinline__ int first_of_strip(int from, int strip, const Frames& f) {
    return min(from + strip * kRowsOut, f.height - kRowsOut);
}

template <class T, class To>
__global__ void __launch_bounds__(128, 3)
    depthwise_glu_kernel(const T* __restrict__ x, const T* __restrict__ weight, const T* __restrict__ bias,
                         To to, Frames f, Part part) {
    int channel = 2 * static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (channel >= f.inner) return;
    int piece = static_cast<int>(blockIdx.z) % part.pieces;
    int64_t frame = (part.first_frame + static_cast<int>(blockIdx.z) / part.pieces * part.frame_step) *
                    f.height * f.width;
    Walk<FromMemory<T>, To> walk{.to = to};
    float factor = walk.to.begin(frame * f.inner);
    walk.width = f.width;
    walk.from = piece * part.columns;
    walk.end = min(walk.from + part.columns, f.width);
    walk.last = min(walk.end, f.width - 1);
    int col = max(walk.from - 1, 0), first = first_of_strip(part.first_row, static_cast<int>(blockIdx.y), f);
    FromMemory<T>& in = walk.source;
    in.x = reinterpret_cast<const uint8_t*>(x + frame * 2 * f.inner);
    in.above = first > 0;
    in.below = first + kRowsOut < f.height;
    in.half = static_cast<uint32_t>(f.inner) * 2;
    in.row = static_cast<uint32_t>(f.width) * 2 * in.half;
    in.at = static_cast<uint32_t>(first) * in.row + static_cast<uint32_t>(col) * 2 * in.half +
            static_cast<uint32_t>(channel) * 2;
    in.last = walk.last;
#pragma unroll
    for (int r = 0; r < kRowsIn; ++r) in.raw[r][0] = in.raw[r][1] = 0;
    in.fetch(col);
    walk.run(weight, bias, f, first, channel, col, factor);
}

}  // namespace sana::cuda::glu
