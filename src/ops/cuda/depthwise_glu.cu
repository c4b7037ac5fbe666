// depthwise_glu: [a, g] = depthwise3x3(silu(x)) + bias, y = a * silu(g).
// A thread keeps two channels of both halves (c, c + F) and six output rows, and walks along the columns: a column of eight
// input rows is loaded one step ahead, takes its SiLU once, and adds to the sums of three output columns in registers; the
// column that is complete leaves. x is read 8/6 times (the halo comes from L2), y written once:
// bytes = 2 * (2F + F) * positions, 0.2 FLOP a byte and 25 instructions a value of x, so memory and issue are near balance.
#include "ops/conv.h"

#include "ops/cuda/cuda.h"
#include "ops/cuda/device/element.cuh"

namespace sana::cuda {

namespace {

constexpr int kRowsOut = 6, kRowsIn = kRowsOut + 2;

// Two SiLUs with one reciprocal: 1/a = b / (a b). The exponents are bounded so that a b stays finite; beyond the bound the
// result is below 1e-15 of x.
__device__ __forceinline__ void silu_pair(float& x0, float& x1) {
    float a = 1.0f + __expf(fminf(-x0, 40.0f)), b = 1.0f + __expf(fminf(-x1, 40.0f));
    float r = __fdividef(1.0f, a * b);
    x0 *= r * b;
    x1 *= r * a;
}

struct Frames {
    int height, width, inner;  // inner: F
};

template <class T>
__global__ void __launch_bounds__(128, 3)
    depthwise_glu_kernel(const T* __restrict__ x, const T* __restrict__ weight, const T* __restrict__ bias,
                         T* __restrict__ y, Frames f) {
    int channel = 2 * static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (channel >= f.inner) return;
    int first = static_cast<int>(blockIdx.y) * kRowsOut;
    int64_t frame = static_cast<int64_t>(blockIdx.z) * f.height * f.width;
    float w[9][4], start[4] = {0, 0, 0, 0};
    auto both = [&](const T* row, float(&out)[4]) {
        load<2>(row + channel, reinterpret_cast<float(&)[2]>(out[0]));
        load<2>(row + channel + f.inner, reinterpret_cast<float(&)[2]>(out[2]));
    };
#pragma unroll
    for (int tap = 0; tap < 9; ++tap) both(weight + static_cast<int64_t>(tap) * 2 * f.inner, w[tap]);
    if (bias != nullptr) both(bias, start);

    using Pair = Vector<T, 2>;
    Pair raw[kRowsIn][2];
    auto fetch = [&](int col) {
#pragma unroll
        for (int r = 0; r < kRowsIn; ++r) {
            int row = first + r - 1;
            raw[r][0] = raw[r][1] = Pair{};
            if (row >= 0 && row < f.height && col < f.width) {
                const T* p = x + (frame + static_cast<int64_t>(row) * f.width + col) * 2 * f.inner + channel;
                raw[r][0] = *reinterpret_cast<const Pair*>(p);
                raw[r][1] = *reinterpret_cast<const Pair*>(p + f.inner);
            }
        }
    };
    float sums[3][kRowsOut][4];
#pragma unroll
    for (int k = 0; k < 3; ++k) {
#pragma unroll
        for (int r = 0; r < kRowsOut; ++r) {
#pragma unroll
            for (int c = 0; c < 4; ++c) sums[k][r][c] = start[c];
        }
    }
    fetch(0);
    for (int col = 0; col <= f.width; ++col) {
        float v[kRowsIn][4];
#pragma unroll
        for (int r = 0; r < kRowsIn; ++r) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                v[r][2 * half] = to_float(raw[r][half].values[0]);
                v[r][2 * half + 1] = to_float(raw[r][half].values[1]);
            }
        }
        fetch(col + 1);
#pragma unroll
        for (int r = 0; r < kRowsIn; ++r) {
            silu_pair(v[r][0], v[r][1]);
            silu_pair(v[r][2], v[r][3]);
        }
        // This column is the right neighbour of the one before, the middle of its own, the left of the next.
#pragma unroll
        for (int k = 0; k < 3; ++k) {
#pragma unroll
            for (int r = 0; r < kRowsOut; ++r) {
#pragma unroll
                for (int tap = 0; tap < 3; ++tap) {
#pragma unroll
                    for (int c = 0; c < 4; ++c) sums[k][r][c] += v[r + tap][c] * w[tap * 3 + 2 - k][c];
                }
            }
        }
        if (col > 0) {
#pragma unroll
            for (int r = 0; r < kRowsOut; ++r) {
                if (first + r >= f.height) break;
                float g0 = sums[0][r][2], g1 = sums[0][r][3];
                silu_pair(g0, g1);
                float out[2] = {sums[0][r][0] * g0, sums[0][r][1] * g1};
                store<2>(
                    y + (frame + static_cast<int64_t>(first + r) * f.width + col - 1) * f.inner + channel,
                    out);
            }
        }
#pragma unroll
        for (int r = 0; r < kRowsOut; ++r) {
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                sums[0][r][c] = sums[1][r][c];
                sums[1][r][c] = sums[2][r][c];
                sums[2][r][c] = start[c];
            }
        }
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
        bool pairs = sizeof(T) == 2 && inner % 2 == 0 && even(args.x.raw()) && even(args.weight.raw()) &&
                     even(bias) && even(args.y.raw()) && frames < 65536;
        if (pairs) {
            // Blocks of the size that leaves fewest threads without channels.
            unsigned threads = (inner / 2 + 127) / 128 * 128 < (inner / 2 + 95) / 96 * 96 ? 128 : 96;
            dim3 grid(static_cast<unsigned>((inner / 2 + threads - 1) / threads),
                      static_cast<unsigned>((f.height + kRowsOut - 1) / kRowsOut),
                      static_cast<unsigned>(frames));
            depthwise_glu_kernel<T><<<grid, threads, 0, stream>>>(pointer<T>(args.x), pointer<T>(args.weight),
                                                                  bias, pointer<T>(args.y), f);
        } else {
            depthwise_glu_any_kernel<T><<<grid_for(args.y.numel(), 256), 256, 0, stream>>>(
                pointer<T>(args.x), pointer<T>(args.weight), bias, pointer<T>(args.y), f, args.y.numel());
        }
    });
    check_launch("depthwise_glu", args.x.device());
}

}  // namespace sana::cuda
