// depthwise_glu: [a, g] = depthwise3x3(silu(x)) + bias, y = a * silu(g).
// A thread keeps two channels of both halves (c, c + F) and six output rows, and walks along the columns: a column of eight
// input rows is loaded one step ahead, takes its SiLU once, and adds to the sums of three output columns in registers; the
// column that is complete leaves. x is read 8/6 times (the halo comes from L2), y written once:
// bytes = 2 * (2F + F) * positions; about 28 instructions and 2.7 special functions a value of x keep the units that issue
// and evaluate them as busy as memory.
#include "ops/conv.h"

#include "ops/cuda/cuda.h"
#include "ops/cuda/device/element.cuh"

namespace sana::cuda {

namespace {

constexpr int kRowsOut = 6, kRowsIn = kRowsOut + 2;

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ float reciprocal_fast(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// x / (1 + exp(-x)) = x/2 (1 + tanh(x/2)), in three instructions. The error, 2^-11 |x|/2 at most, is an eighth of what the
// rounding of x to bf16 makes.
__device__ __forceinline__ float silu_fast(float x) {
    float half = 0.5f * x, t;
    asm("tanh.approx.f32 %0, %1;" : "=f"(t) : "f"(half));
    return fmaf(half, t, half);
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

// One thread's column of rows: channels c, c + 1 of both halves.
template <class T>
struct Walk {
    using Pair = Vector<T, 2>;
    const T* x;  // the frame, at the thread's first channel
    T* y;
    Frames f;
    int first;            // output row
    int offset[kRowsIn];  // of the input rows; rows outside are the nearest inside, and count as zero
    float w[9][4], start[4];
    Pair raw[kRowsIn][2];
    bool edge;  // some rows are outside

    __device__ __forceinline__ void fetch(int col) {
#pragma unroll
        for (int r = 0; r < kRowsIn; ++r) {
            const T* p = x + offset[r] + col * 2 * f.inner;
            raw[r][0] = *reinterpret_cast<const Pair*>(p);
            raw[r][1] = *reinterpret_cast<const Pair*>(p + f.inner);
        }
    }

    using Sums = float[kRowsOut][4];

    // Adds a column to the sums of its left neighbour (which it completes), its own and its right neighbour's.
    __device__ __forceinline__ void add(int col, Sums& left, Sums& own, Sums& right) {
        float v[kRowsIn][4];
#pragma unroll
        for (int r = 0; r < kRowsIn; ++r) {
#pragma unroll
            for (int c = 0; c < 4; ++c) v[r][c] = to_float(raw[r][c / 2].values[c % 2]);
        }
        fetch(min(col + 1, f.width - 1));
#pragma unroll
        for (int r = 0; r < kRowsIn; ++r) {
#pragma unroll
            for (int c = 0; c < 4; ++c) v[r][c] = silu_fast(v[r][c]);
        }
        if (edge) {
#pragma unroll
            for (int r = 0; r < kRowsIn; ++r) {
                bool inside = first + r - 1 >= 0 && first + r - 1 < f.height;
#pragma unroll
                for (int c = 0; c < 4; ++c) v[r][c] = inside ? v[r][c] : 0.0f;
            }
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
        if (col > 0) emit(col - 1, left);
    }

    __device__ __forceinline__ void emit(int col, Sums& sums) const {
#pragma unroll
        for (int r = 0; r < kRowsOut; ++r) {
            if (first + r >= f.height) break;
            float g0 = sums[r][2], g1 = sums[r][3];
            silu_pair(g0, g1);
            float out[2] = {sums[r][0] * g0, sums[r][1] * g1};
            store<2>(y + (static_cast<int64_t>(first + r) * f.width + col) * f.inner, out);
        }
    }
};

template <class T>
__global__ void __launch_bounds__(128, 3)
    depthwise_glu_kernel(const T* __restrict__ x, const T* __restrict__ weight, const T* __restrict__ bias,
                         T* __restrict__ y, Frames f) {
    int channel = 2 * static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (channel >= f.inner) return;
    int64_t frame = static_cast<int64_t>(blockIdx.z) * f.height * f.width;
    Walk<T> walk;
    walk.f = f;
    walk.x = x + frame * 2 * f.inner + channel;
    walk.y = y + frame * f.inner + channel;
    walk.first = static_cast<int>(blockIdx.y) * kRowsOut;
    walk.edge = walk.first == 0 || walk.first + kRowsOut >= f.height;
#pragma unroll
    for (int r = 0; r < kRowsIn; ++r) {
        walk.offset[r] = min(max(walk.first + r - 1, 0), f.height - 1) * f.width * 2 * f.inner;
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

    typename Walk<T>::Sums a, b, c;
#pragma unroll
    for (int r = 0; r < kRowsOut; ++r) {
#pragma unroll
        for (int i = 0; i < 4; ++i) a[r][i] = b[r][i] = walk.start[i];
    }
    walk.fetch(0);
    // The sums take turns instead of being moved.
    for (int col = 0;;) {
        walk.add(col, a, b, c);
        if (++col == f.width) return walk.emit(col - 1, b);
        walk.add(col, b, c, a);
        if (++col == f.width) return walk.emit(col - 1, c);
        walk.add(col, c, a, b);
        if (++col == f.width) return walk.emit(col - 1, a);
    }
}

// Any width and dtype: a thread an output element.
template <class T>
__global__ void depthwise_glu_any_kernel(const T* x, const T* weight, const T* bias, T* y, Frames f,
                                         int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        int64_t channel = i % f.inner, position = i / f.inner;
        int64_t col = position % f.width, row = position / f.width % f.height;
        float sums[2];
        for (int half = 0; half < 2; ++half) {
            int64_t c = channel + half * f.inner;
            float sum = bias != nullptr ? to_float(bias[c]) : 0.0f;
            for (int dh = -1; dh <= 1; ++dh) {
                for (int dw = -1; dw <= 1; ++dw) {
                    if (row + dh < 0 || row + dh >= f.height || col + dw < 0 || col + dw >= f.width) continue;
                    float v = to_float(x[(position + dh * f.width + dw) * 2 * f.inner + c]);
                    sum +=
                        v / (1.0f + expf(-v)) * to_float(weight[((dh + 1) * 3 + dw + 1) * 2 * f.inner + c]);
                }
            }
            sums[half] = sum;
        }
        y[i] = from_float<T>(sums[0] * (sums[1] / (1.0f + expf(-sums[1]))));
    }
}

}  // namespace

void depthwise_glu(const DepthwiseGluArgs& args) {
    if (args.y.numel() == 0) return;
    int64_t frames = args.x.dim(0) * args.x.dim(1), inner = args.y.cols();
    Frames f{static_cast<int>(args.x.dim(2)), static_cast<int>(args.x.dim(3)), static_cast<int>(inner)};
    cudaStream_t stream = stream_of(args.x.device());
    dispatch_cuda("depthwise_glu", args.x.dtype(), [&]<class T>() {
        const T* bias = args.bias.defined() ? pointer<T>(args.bias) : nullptr;
        auto even = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % (2 * sizeof(T)) == 0; };
        bool pairs = inner % 2 == 0 && frames < 65536 &&
                     int64_t{f.height} * f.width * 2 * inner < INT32_MAX && even(args.x.raw()) &&
                     even(args.weight.raw()) && even(bias) && even(args.y.raw());
        if constexpr (sizeof(T) == 2) {
            if (pairs) {
                // Blocks of the size that leaves fewest threads without channels.
                unsigned threads = (inner / 2 + 127) / 128 * 128 < (inner / 2 + 95) / 96 * 96 ? 128 : 96;
                dim3 grid(static_cast<unsigned>((inner / 2 + threads - 1) / threads),
                          static_cast<unsigned>((f.height + kRowsOut - 1) / kRowsOut),
                          static_cast<unsigned>(frames));
                depthwise_glu_kernel<T><<<grid, threads, 0, stream>>>(
                    pointer<T>(args.x), pointer<T>(args.weight), bias, pointer<T>(args.y), f);
                return;
            }
        }
        depthwise_glu_any_kernel<T><<<grid_for(args.y.numel(), 256), 256, 0, stream>>>(
            pointer<T>(args.x), pointer<T>(args.weight), bias, pointer<T>(args.y), f, args.y.numel());
    });
    check_launch("depthwise_glu", args.x.device());
}

}  // namespace sana::cuda
