// The walk of the first pass of depthwise_glu's derivative, [a, g] = depthwise3x3(silu(x)) + bias with 16-bit x, in strips of
// any number of rows (the forward pass has one of its own, device/depthwise_glu.cuh, which may take part of the columns).
// A thread keeps two channels of both halves (c, c + F) and R output rows, and walks along the columns: a column of R + 2
// input rows is loaded one step ahead, takes its SiLU once, and adds to the sums of three output columns in registers; the
// column that is complete leaves. x is read (R + 2) / R times, the halo from L2.
#pragma once

#include "ops/cuda/cuda.h"
#include "ops/cuda/device/element.cuh"
#include "ops/cuda/device/fast_math.cuh"

namespace sana::cuda {

// Two neighbouring 16-bit values, held in one register.
template <class T>
__device__ __forceinline__ uint32_t load_pair(const T* p) {
    return *reinterpret_cast<const uint32_t*>(p);
}
template <class T>
__device__ __forceinline__ float2 floats(uint32_t pair) {
    if constexpr (std::is_same_v<T, bf16_t>) {
        return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
    } else {
        return __half22float2(reinterpret_cast<const __half2&>(pair));
    }
}
// Halves of them.
template <class T>
__device__ __forceinline__ float2 halves(uint32_t pair) {
    if constexpr (std::is_same_v<T, bf16_t>) {
        __nv_bfloat162 half = __hmul2(reinterpret_cast<const __nv_bfloat162&>(pair), {0.5f, 0.5f});  // exact
        return floats<T>(reinterpret_cast<const uint32_t&>(half));
    } else {
        float2 x = floats<T>(pair);
        return make_float2(0.5f * x.x, 0.5f * x.y);
    }
}

struct FrameSize {
    int height, width, inner;  // inner: F
};

// One thread's column of R rows. To takes what is complete: begin(position, channel, size) with the strip's first pixel,
// then (size, col, sums) a column, then finish().
template <class T, class To, int R>
struct DepthwiseWalk {
    static constexpr int kIn = R + 2;
    using Sums = float[R][4];

    const T* x;  // the frame, at the thread's first channel
    To to;
    FrameSize f;
    int offset[kIn];  // of the input rows
    float w[9][4], start[4];
    uint32_t raw[kIn][2];
    bool above, below;  // whether the first and the last of the input rows exist; those that do not stay zero

    __device__ __forceinline__ void fetch(int col) {
#pragma unroll
        for (int r = 0; r < kIn; ++r) {
            if ((r == 0 && !above) || (r == kIn - 1 && !below)) continue;
            const T* p = x + offset[r] + col * 2 * f.inner;
            raw[r][0] = load_pair(p);
            raw[r][1] = load_pair(p + f.inner);
        }
    }

    // Adds a column to the sums of its left neighbour (which it completes), its own and its right neighbour's.
    __device__ __forceinline__ void add(int col, Sums& left, Sums& own, Sums& right) {
        float v[kIn][4];
#pragma unroll
        for (int r = 0; r < kIn; ++r) {
            float2 a = halves<T>(raw[r][0]), g = halves<T>(raw[r][1]);
            v[r][0] = a.x;
            v[r][1] = a.y;
            v[r][2] = g.x;
            v[r][3] = g.y;
        }
        fetch(min(col + 1, f.width - 1));
#pragma unroll
        for (int r = 0; r < kIn; ++r) {
#pragma unroll
            for (int c = 0; c < 4; ++c) v[r][c] = silu_of_half(v[r][c]);
        }
#pragma unroll
        for (int r = 0; r < R; ++r) {
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
        if (col > 0) to(f, col - 1, left);
    }

    __device__ __forceinline__ void end(Sums& last) {
        to(f, f.width - 1, last);
        to.finish();
    }
};

// The strip of R rows from `first`, at most height - R, of a frame (counted over all samples).
template <int R, class T, class To>
__device__ __forceinline__ void depthwise_walk(const T* x, const T* weight, const T* bias, const To& to,
                                               const FrameSize& f, int64_t frame, int first, int channel) {
    using Walk = DepthwiseWalk<T, To, R>;
    int64_t position = frame * f.height * f.width;
    Walk walk{.x = x + position * 2 * f.inner + channel, .to = to, .f = f};
    walk.to.begin(position + first * f.width, channel, f);
    walk.above = first > 0;
    walk.below = first + R < f.height;
#pragma unroll
    for (int r = 0; r < Walk::kIn; ++r) {
        walk.offset[r] = (first + r - 1) * f.width * 2 * f.inner;
        walk.raw[r][0] = walk.raw[r][1] = 0;
    }
    auto both = [&](const T* row, float(&out)[4]) {
        load<2>(row + channel, reinterpret_cast<float(&)[2]>(out[0]));
        load<2>(row + channel + f.inner, reinterpret_cast<float(&)[2]>(out[2]));
    };
#pragma unroll
    for (int tap = 0; tap < 9; ++tap) both(weight + static_cast<int64_t>(tap) * 2 * f.inner, walk.w[tap]);
#pragma unroll
    for (int c = 0; c < 4; ++c) walk.start[c] = 0;
    if (bias != nullptr) both(bias, walk.start);

    typename Walk::Sums a, b, c;
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int i = 0; i < 4; ++i) a[r][i] = b[r][i] = walk.start[i];
    }
    walk.fetch(0);
    // The sums take turns instead of being moved.
    for (int col = 0;;) {
        walk.add(col, a, b, c);
        if (++col == f.width) return walk.end(b);
        walk.add(col, b, c, a);
        if (++col == f.width) return walk.end(c);
        walk.add(col, c, a, b);
        if (++col == f.width) return walk.end(a);
    }
}

// Whether the walk of R rows suits: 16-bit pairs of channels at even addresses, rows for a strip, offsets in 32 bits.
inline bool depthwise_walks(const Tensor& x, int64_t rows, std::initializer_list<const void*> pointers) {
    int64_t inner = x.cols() / 2;
    bool even = true;
    for (const void* p : pointers) even = even && reinterpret_cast<uintptr_t>(p) % 4 == 0;
    return even && size_of(x.dtype()) == 2 && x.dim(2) >= rows && inner % 2 == 0 &&
           x.dim(0) * x.dim(1) < 65536 && x.dim(2) * x.dim(3) * 2 * inner < INT32_MAX;
}

// Threads of a block that leave fewest without channels, of the pairs of channels.
inline unsigned depthwise_threads(int64_t pairs) {
    return (pairs + 127) / 128 * 128 < (pairs + 95) / 96 * 96 ? 128 : 96;
}

}  // namespace sana::cuda
