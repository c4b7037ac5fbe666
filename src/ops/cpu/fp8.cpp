// E4M3 on the CPU: codes are made and read one by one; products are those of
// the dequantised operands.
#include "ops/fp8.h"

#include <array>
#include <bit>
#include <cmath>

#include "core/parallel.h"
#include "ops/cpu/cpu.h"

namespace sana::cpu {

namespace {

// The largest finite code is 0x7e = 448; 0x7f is NaN. |x| <= 448.
uint8_t encoded(float x) {
    uint32_t u = std::bit_cast<uint32_t>(x), sign = u >> 24 & 0x80u, magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<uint8_t>(sign | 0x7fu);
    if (magnitude < 0x3c800000u) {  // below 2^-6: multiples of 2^-9
        float steps = std::nearbyint(std::bit_cast<float>(magnitude) * 512.0f);
        return static_cast<uint8_t>(sign | static_cast<uint32_t>(steps));
    }
    uint32_t rounded = (magnitude + 0x7ffffu + (magnitude >> 20 & 1u)) >> 20;  // 3 bits of mantissa
    return static_cast<uint8_t>(sign | (rounded - (120u << 3)));               // exponent bias 127 -> 7
}

std::array<float, 256> make_values() {
    std::array<float, 256> values{};
    for (uint32_t code = 0; code < 256; ++code) {
        uint32_t exponent = code >> 3 & 15u, mantissa = code & 7u;
        float magnitude = exponent == 0 ? static_cast<float>(mantissa) * 0x1p-9f
                                        : std::ldexp(1.0f + static_cast<float>(mantissa) / 8.0f,
                                                     static_cast<int>(exponent) - 7);
        if ((code & 0x7fu) == 0x7fu) magnitude = std::nanf("");
        values[code] = code >= 128 ? -magnitude : magnitude;
    }
    return values;
}

uint8_t saturated(float x) { return encoded(x > 448.0f ? 448.0f : x < -448.0f ? -448.0f : x); }

// The larger magnitude; NaN is above all.
float larger(float largest, float x) {
    float magnitude = std::abs(x);
    return magnitude <= largest || largest != largest ? largest : magnitude;
}

// The smallest power of two s with largest <= 448 s; within fp32's normal
// numbers.
float scale_of(float largest) {
    if (!(largest <= 3.4028234e38f)) return std::nanf("");
    if (largest == 0) return 1;
    int exponent = 0;
    float fraction = std::frexp(largest, &exponent);  // in [0.5, 1); 448 = 0.875 * 2^9
    return std::ldexp(1.0f, std::max(exponent - 9 + (fraction > 0.875f ? 1 : 0), -120));
}

template <class T>
void quantise_row(const T* x, int64_t cols, uint8_t* codes, float* scale) {
    float largest = 0;
    for (int64_t i = 0; i < cols; ++i) largest = larger(largest, static_cast<float>(x[i]));
    *scale = scale_of(largest);
    float inverse = 1 / *scale;
    for (int64_t i = 0; i < cols; ++i) codes[i] = encoded(static_cast<float>(x[i]) * inverse);
}

}  // namespace

void quantise(const QuantiseArgs& args) {
    int64_t rows = args.x.rows(), cols = args.x.cols();
    auto* codes = static_cast<uint8_t*>(args.y.codes.raw());
    float* scale = args.y.scale.data<float>();
    dispatch_float(args.x.dtype(), [&]<class T>() {
        const T* x = args.x.data<T>();
        parallel_for(rows, cols * 8, [&](int64_t r) {
            quantise_row(x + r * args.x.row_stride(), cols, codes + r * cols, scale + r);
        });
    });
}

void dequantise(const DequantiseArgs& args) {
    static const std::array<float, 256> values = make_values();
    int64_t rows = args.y.rows(), cols = args.y.cols();
    auto* codes = static_cast<const uint8_t*>(args.x.codes.raw());
    const float* scale = args.x.scale.data<float>();
    dispatch_float(args.y.dtype(), [&]<class T>() {
        T* y = args.y.data<T>();
        parallel_for(rows, cols, [&](int64_t r) {
            for (int64_t i = r * cols; i < (r + 1) * cols; ++i)
                y[i] = T(static_cast<compute_t<T>>(values[codes[i]] * scale[r]));
        });
    });
}

void linear_fp8(const LinearFp8Args& args) {
    DType dtype = args.y.dtype();
    Tensor x = sana::dequantise(args.x, dtype), weight = sana::dequantise(args.weight, dtype);
    linear({x, weight, args.bias, args.out, args.y});
}

void temporal_conv_fp8(const TemporalConvFp8Args& args) {
    DType dtype = args.y.dtype();
    int64_t channels = args.x.cols();
    Tensor x = sana::dequantise(args.codes, dtype),
           weight = sana::dequantise(args.weight, dtype).reshape({channels, 3, channels});
    int64_t past = x.dim(1) - args.x.dim(1);
    Tensor before = past > 0 ? slice(x, 1, 0, past) : Tensor();
    temporal_conv_of(past > 0 ? slice(x, 1, past, x.dim(1) - past) : x,
                     {args.x, weight, before, args.out, args.y});
}

void layer_norm_modulate_fp8(const LayerNormModulateFp8Args& args) {
    DType dtype = args.x.dtype() == DType::F64 ? DType::F64 : DType::F32;
    Tensor x = args.x.to(dtype).contiguous(), shift = args.shift.to(dtype), scale = args.scale.to(dtype),
           y = empty(x.shape(), dtype);
    layer_norm_modulate({x, shift, scale, args.eps, y});
    quantise({y, args.y});
}

void depthwise_glu_fp8(const DepthwiseGluFp8Args& args) {
    if (args.y.codes.numel() == 0) return;
    DType dtype = args.x.dtype() == DType::F64 ? DType::F64 : DType::F32;
    Tensor x = args.x.to(dtype), weight = args.weight.to(dtype),
           bias = args.bias.defined() ? args.bias.to(dtype) : Tensor(),
           y = empty(args.y.codes.shape(), dtype);
    depthwise_glu({x, weight, bias, y});
    Tensor values = y.to(DType::F32);
    const float* v = values.data<float>();
    GluSample sample = glu_sample(args.x.shape());
    int64_t row = y.dim(3) * y.cols(), frame = y.dim(2) * row, cols = y.cols();
    float largest = 0;
    for (int64_t f : sample.frames) {
        const float* from = v + f * frame + sample.first_row * row;
        for (int64_t i = 0; i < sample.rows * row; ++i) largest = larger(largest, from[i]);
    }
    float scale = scale_of(largest * 32), inverse = 1 / scale;
    auto* codes = static_cast<uint8_t*>(args.y.codes.raw());
    parallel_for(y.rows(), cols * 8, [&](int64_t r) {
        args.y.scale.data<float>()[r] = scale;
        for (int64_t i = r * cols; i < (r + 1) * cols; ++i) codes[i] = saturated(v[i] * inverse);
    });
}

}  // namespace sana::cpu
