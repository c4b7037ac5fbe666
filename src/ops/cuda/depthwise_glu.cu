// depthwise_glu: [a, g] = depthwise3x3(silu(x)) + bias, y = a * silu(g), by the walk of device/depthwise_walk.cuh with six
// output rows a thread: x is read 8/6 times (the halo comes from L2), y written once:
// bytes = 2 * (2F + F) * positions; about 28 instructions and 2.7 special functions a value of x keep the units that issue
// and evaluate them as busy as memory. To E4M3 (ops/fp8.h) the same walk goes twice: over the sampled rows, for their
// largest magnitude, and over all of them.
#include "ops/conv.h"

#include "ops/cuda/device/depthwise_walk.cuh"
#include "ops/cuda/device/rows.cuh"
#include "ops/glu_fp8.h"

namespace sana::cuda {

namespace {

constexpr int kRows = 6;
constexpr int kGluHeadroom = 5;  // log2 of what the sampled maximum may be exceeded by (ops/fp8.h)

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

// What is made of a pair of channels of both halves.
__device__ __forceinline__ void gated(const float (&sums)[4], float (&out)[2]) {
    float g0 = sums[2], g1 = sums[3];
    silu_pair(g0, g1);
    out[0] = sums[0] * g0;
    out[1] = sums[1] * g1;
}

// Where results go: f(at, pair) for pairs of channels, in fp32, with their place from the strip's first.
template <class F>
__device__ __forceinline__ void each_row(const FrameSize& f, int col, const float (&sums)[kRows][4], F&& to) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        float out[2];
        gated(sums[r], out);
        to(static_cast<int64_t>(r * f.width + col) * f.inner, out);
    }
}

template <class T>
struct ToDense {
    T* y;
    __device__ __forceinline__ void begin(int64_t position, int channel, const FrameSize& f) {
        y += position * f.inner + channel;
    }
    __device__ __forceinline__ void operator()(const FrameSize& f, int col, const float (&sums)[kRows][4]) {
        each_row(f, col, sums, [&](int64_t at, const float(&pair)[2]) { store<2>(y + at, pair); });
    }
    __device__ __forceinline__ void finish() const {}
};

// To codes, by the scale that the largest magnitude asks for.
struct ToCodes {
    uint8_t* y;
    const uint32_t* largest;
    float inverse;
    __device__ __forceinline__ void begin(int64_t position, int channel, const FrameSize& f) {
        y += position * f.inner + channel;
        inverse = power_of_two(*largest, kGluHeadroom).inverse;
    }
    __device__ __forceinline__ void operator()(const FrameSize& f, int col, const float (&sums)[kRows][4]) {
        each_row(f, col, sums, [&](int64_t at, const float(&pair)[2]) {
            *reinterpret_cast<uint16_t*>(y + at) = __nv_cvt_float2_to_fp8x2(
                make_float2(pair[0] * inverse, pair[1] * inverse), __NV_SATFINITE, __NV_E4M3);
        });
    }
    __device__ __forceinline__ void finish() const {}
};

// Nowhere: only the largest magnitude is wanted.
struct ToLargest {
    uint32_t* largest;
    uint32_t seen;
    __device__ __forceinline__ void begin(int64_t, int, const FrameSize&) { seen = 0; }
    __device__ __forceinline__ void operator()(const FrameSize& f, int col, const float (&sums)[kRows][4]) {
        each_row(f, col, sums, [&](int64_t, const float(&pair)[2]) {
            seen = max(seen,
                       max(__float_as_uint(pair[0]) & 0x7fffffffu, __float_as_uint(pair[1]) & 0x7fffffffu));
        });
    }
    __device__ __forceinline__ void finish() const { atomicMax(largest, seen); }
};

// Which strips of which frames a launch walks over.
struct Part {
    int64_t first_frame = 0, frame_step = 1;
    int first_row = 0;
};

template <class T, class To>
__global__ void __launch_bounds__(128, 3)
    depthwise_glu_kernel(const T* __restrict__ x, const T* __restrict__ weight, const T* __restrict__ bias,
                         To to, FrameSize f, Part part) {
    int channel = 2 * static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (channel >= f.inner) return;
    // The last strip ends with the frame: what it has in common with the one before is made twice, and is the same.
    int first = min(part.first_row + static_cast<int>(blockIdx.y) * kRows, f.height - kRows);
    depthwise_walk<kRows>(x, weight, bias, to, f,
                          part.first_frame + static_cast<int64_t>(blockIdx.z) * part.frame_step, first,
                          channel);
}

// Any width and dtype: a thread an output element.
template <class T>
__global__ void depthwise_glu_any_kernel(const T* x, const T* weight, const T* bias, T* y, FrameSize f,
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

FrameSize frames_of(const Tensor& x) {
    return {static_cast<int>(x.dim(2)), static_cast<int>(x.dim(3)), static_cast<int>(x.cols() / 2)};
}

bool walks(const Tensor& x, const Tensor& weight, const Tensor& bias, const void* y) {
    return depthwise_walks(x, kRows, {x.raw(), weight.raw(), bias.defined() ? bias.raw() : nullptr, y});
}

template <class T, class To>
void walk_over(const Tensor& x, const Tensor& weight, const Tensor& bias, const To& to, int64_t frames,
               int64_t rows, const Part& part) {
    FrameSize f = frames_of(x);
    int pairs = f.inner / 2;
    unsigned threads = depthwise_threads(pairs);
    dim3 grid((static_cast<unsigned>(pairs) + threads - 1) / threads,
              static_cast<unsigned>((rows + kRows - 1) / kRows), static_cast<unsigned>(frames));
    depthwise_glu_kernel<T><<<grid, threads, 0, stream_of(x.device())>>>(
        pointer<T>(x), pointer<T>(weight), bias.defined() ? pointer<T>(bias) : nullptr, to, f, part);
    check_launch("depthwise_glu_kernel", x.device());
}

__global__ void fill_scale_kernel(const uint32_t* largest, float* scale, int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    float value = power_of_two(*largest, kGluHeadroom).scale;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step)
        scale[i] = value;
}

// For dtypes and alignments that the walk does not take: from results that are there.
__global__ void largest_kernel(const float* y, uint32_t* largest, int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    uint32_t seen = 0;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step)
        seen = max(seen, __float_as_uint(y[i]) & 0x7fffffffu);
    atomicMax(largest, seen);
}

__global__ void to_codes_kernel(const float* y, const uint32_t* largest, uint8_t* codes, int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    float inverse = power_of_two(*largest, kGluHeadroom).inverse;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step)
        codes[i] = __nv_cvt_float_to_fp8(y[i] * inverse, __NV_SATFINITE, __NV_E4M3);
}

}  // namespace

void depthwise_glu(const DepthwiseGluArgs& args) {
    if (args.y.numel() == 0) return;
    int64_t frames = args.x.dim(0) * args.x.dim(1);
    dispatch_cuda("depthwise_glu", args.x.dtype(), [&]<class T>() {
        if constexpr (sizeof(T) == 2) {
            if (walks(args.x, args.weight, args.bias, args.y.raw())) {
                ToDense<T> to{pointer<T>(args.y)};
                return walk_over<T>(args.x, args.weight, args.bias, to, frames, args.x.dim(2), {});
            }
        }
        depthwise_glu_any_kernel<T><<<grid_for(args.y.numel(), 256), 256, 0, stream_of(args.x.device())>>>(
            pointer<T>(args.x), pointer<T>(args.weight),
            args.bias.defined() ? pointer<T>(args.bias) : nullptr, pointer<T>(args.y), frames_of(args.x),
            args.y.numel());
    });
    check_launch("depthwise_glu", args.x.device());
}

void depthwise_glu_fp8(const DepthwiseGluFp8Args& args) {
    const Tensor& codes = args.y.codes;
    if (codes.numel() == 0) return;
    GluSample sample = glu_sample(args.x.shape());
    int64_t frames = args.x.dim(0) * args.x.dim(1), frame = codes.dim(2) * codes.dim(3) * codes.cols();
    cudaStream_t stream = stream_of(codes.device());
    Tensor largest = zeros({1}, DType::I32, codes.device());
    auto* bits = static_cast<uint32_t*>(largest.raw());
    ToCodes to{pointer<uint8_t>(codes), bits, 0};
    if (walks(args.x, args.weight, args.bias, codes.raw())) {
        dispatch_cuda("depthwise_glu_fp8", args.x.dtype(), [&]<class T>() {
            if constexpr (sizeof(T) == 2) {
                Part part{sample.frames[0], sample.frames[1] - sample.frames[0],
                          static_cast<int>(sample.first_row)};
                walk_over<T>(args.x, args.weight, args.bias, ToLargest{bits, 0}, 2, sample.rows, part);
                walk_over<T>(args.x, args.weight, args.bias, to, frames, args.x.dim(2), {});
            }
        });
    } else {
        Tensor x = args.x.to(DType::F32), weight = args.weight.to(DType::F32),
               bias = args.bias.defined() ? args.bias.to(DType::F32) : Tensor(),
               y = empty(codes.shape(), DType::F32, codes.device());
        depthwise_glu({x, weight, bias, y});
        int64_t row = codes.dim(3) * codes.cols(), count = sample.rows * row;
        for (int64_t f : sample.frames) {
            largest_kernel<<<grid_for(count, 256), 256, 0, stream>>>(
                pointer<float>(y) + f * frame + sample.first_row * row, bits, count);
        }
        to_codes_kernel<<<grid_for(y.numel(), 256), 256, 0, stream>>>(pointer<float>(y), bits, to.y,
                                                                      y.numel());
    }
    fill_scale_kernel<<<grid_for(codes.rows(), 256), 256, 0, stream>>>(bits, pointer<float>(args.y.scale),
                                                                       codes.rows());
    check_launch("depthwise_glu_fp8", codes.device());
}

}  // namespace sana::cuda
