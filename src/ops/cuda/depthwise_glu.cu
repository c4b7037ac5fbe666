// depthwise_glu, to the dtype of x by the walk of device/depthwise_glu.cuh where it suits, and to E4M3 (ops/glu_fp8.h): the
// same walk over the sampled rows, for their largest magnitude, and then over all of them.
#include "ops/conv.h"

#include "ops/cuda/cuda.h"
#include "ops/cuda/device/depthwise_glu_sm90.cuh"
#include "ops/cuda/hopper.h"
#include "ops/glu_fp8.h"

namespace sana::cuda {

namespace {

using namespace glu;

constexpr int kSampleColumns = 4;  // of a block that looks for the maximum

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

Frames frames_of(const Tensor& x) {
    return {static_cast<int>(x.dim(2)), static_cast<int>(x.dim(3)), static_cast<int>(x.cols() / 2)};
}

// Whether the walk suits: 16-bit pairs of channels at even addresses, rows for a strip, offsets in 32 bits.
bool walks(const Tensor& x, const Tensor& weight, const Tensor& bias, const void* y) {
    auto even = [&](const void* p) { return reinterpret_cast<uintptr_t>(p) % (2 * size_of(x.dtype())) == 0; };
    int64_t inner = x.cols() / 2;
    return size_of(x.dtype()) == 2 && x.dim(2) >= kRowsOut && inner % 2 == 0 && x.dim(0) * x.dim(1) < 65536 &&
           x.dim(2) * x.dim(3) * 2 * inner < INT32_MAX && even(x.raw()) && even(weight.raw()) &&
           even(bias.raw()) && even(y);
}

template <class T, class To>
void walk_over(const Tensor& x, const Tensor& weight, const Tensor& bias, const To& to, int64_t frames,
               int64_t rows, const Part& part) {
    Frames f = frames_of(x);
    // Blocks of the size that leaves fewest threads without channels.
    int pairs = f.inner / 2;
    unsigned threads = (pairs + 127) / 128 * 128 < (pairs + 95) / 96 * 96 ? 128 : 96;
    dim3 grid((static_cast<unsigned>(pairs) + threads - 1) / threads,
              static_cast<unsigned>((rows + kRowsOut - 1) / kRowsOut),
              static_cast<unsigned>(frames * part.pieces));
    depthwise_glu_kernel<T><<<grid, threads, 0, stream_of(x.device())>>>(
        pointer<T>(x), pointer<T>(weight), bias.defined() ? pointer<T>(bias) : nullptr, to, f, part);
    check_launch("depthwise_glu_kernel", x.device());
}

// Whether boxes suit: rows that the copy engine reaches, and few threads without channels.
bool boxes_suit(const Tensor& x) {
    int64_t inner = x.cols() / 2, padded = (inner + kBoxChannels - 1) / kBoxChannels * kBoxChannels;
    return is_hopper(x.device()) && aligned(x.raw(), inner) && 8 * padded <= 9 * inner;
}

template <class T, class To>
void walk_by_boxes(const Tensor& x, const Tensor& weight, const Tensor& bias, const To& to) {
    Frames f = frames_of(x);
    int64_t inner = f.inner, frames = x.dim(0) * x.dim(1), row = f.width * 2 * inner;
    int64_t sizes[] = {inner, 2, f.width, f.height, frames},
            strides[] = {1, inner, 2 * inner, row, f.height * row};
    int box[] = {kBoxChannels, 2, 1, kRowsIn, 1};
    CUtensorMap map = tensor_map(x.raw(), 5, sizes, strides, box, false);
    dim3 grid(static_cast<unsigned>((inner + kBoxChannels - 1) / kBoxChannels),
              static_cast<unsigned>((f.height + kRowsOut - 1) / kRowsOut), static_cast<unsigned>(frames));
    depthwise_glu_boxes_kernel<T><<<grid, 32, 0, stream_of(x.device())>>>(
        map, pointer<T>(weight), bias.defined() ? pointer<T>(bias) : nullptr, to, f);
    check_launch("depthwise_glu_boxes_kernel", x.device());
}

template <class T, class To>
void walk_over_all(const Tensor& x, const Tensor& weight, const Tensor& bias, const To& to) {
    if (boxes_suit(x)) return walk_by_boxes<T>(x, weight, bias, to);
    walk_over<T>(x, weight, bias, to, x.dim(0) * x.dim(1), x.dim(2),
                 {0, 1, 0, static_cast<int>(x.dim(3)), 1});
}

template <class T>
void walk_to_codes(const DepthwiseGluFp8Args& args, uint32_t* largest) {
    GluSample sample = glu_sample(args.x.shape());
    int width = static_cast<int>(args.x.dim(3)), columns = std::max(kSampleColumns, width / 1024 + 1);
    walk_over<T>(args.x, args.weight, args.bias, ToLargest{largest, 0}, 2, sample.rows,
                 {sample.frames[0], sample.frames[1] - sample.frames[0], static_cast<int>(sample.first_row),
                  columns, (width + columns - 1) / columns});
    walk_over_all<T>(args.x, args.weight, args.bias, ToCodes{pointer<uint8_t>(args.y.codes), largest});
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
    dispatch_cuda("depthwise_glu", args.x.dtype(), [&]<class T>() {
        if constexpr (sizeof(T) == 2) {
            if (walks(args.x, args.weight, args.bias, args.y.raw())) {
                return walk_over_all<T>(args.x, args.weight, args.bias, ToDense<T>{pointer<T>(args.y)});
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
    cudaStream_t stream = stream_of(codes.device());
    Tensor largest = zeros({1}, DType::I32, codes.device());
    auto* bits = static_cast<uint32_t*>(largest.raw());
    if (walks(args.x, args.weight, args.bias, codes.raw())) {
        dispatch_cuda("depthwise_glu_fp8", args.x.dtype(), [&]<class T>() {
            if constexpr (sizeof(T) == 2) walk_to_codes<T>(args, bits);
        });
    } else {
        Tensor x = args.x.to(DType::F32), weight = args.weight.to(DType::F32),
               bias = args.bias.defined() ? args.bias.to(DType::F32) : Tensor(),
               y = empty(codes.shape(), DType::F32, codes.device());
        depthwise_glu({x, weight, bias, y});
        GluSample sample = glu_sample(args.x.shape());
        int64_t row = codes.dim(3) * codes.cols(), frame = codes.dim(2) * row, count = sample.rows * row;
        for (int64_t f : sample.frames) {
            largest_kernel<<<grid_for(count, 256), 256, 0, stream>>>(
                pointer<float>(y) + f * frame + sample.first_row * row, bits, count);
        }
        to_codes_kernel<<<grid_for(y.numel(), 256), 256, 0, stream>>>(pointer<float>(y), bits,
                                                                      pointer<uint8_t>(codes), y.numel());
    }
    fill_scale_kernel<<<grid_for(codes.rows(), 256), 256, 0, stream>>>(bits, pointer<float>(args.y.scale),
                                                                       codes.rows());
    check_launch("depthwise_glu_fp8", codes.device());
}

}  // namespace sana::cuda
