// layer_norm_modulate, to the dtype of x or to E4M3, and rms_norm: rows in registers (device/rows.cuh), statistics are exact
// sums, y is written once: time = (bytes(x) + bytes(y)) / bandwidth.
// H200, 2026-12-01, 65,520 rows of 2,240 bf16 (a copy 0.144 ms): layer_norm_modulate 0.145 ms, to E4M3 0.131, rms_norm 0.142.
// An element costs layer_norm_modulate 17 instructions, 10.5 of which are its own arithmetic; to E4M3 20.
#include "ops/norm.h"

#include "ops/cuda/cuda.h"
#include "ops/cuda/device/rows.cuh"
#include "ops/cuda/rms_norm_short.h"
#include "ops/fp8.h"

namespace sana::cuda {

namespace {

// sum / n with the rounding of a division, so that equal elements have themselves for their mean.
__device__ __forceinline__ float mean_of(float sum, float n, float inverse) {
    float q = sum * inverse;
    return fmaf(fmaf(-q, n, sum), inverse, q);
}

template <class T, class Out>
struct LayerNorm {
    const T *shift, *scale;
    int64_t shift_stride, scale_stride;
    Divisor per_group;   // rows that share shift and scale
    float eps, inverse;  // 1 / C
    Out out;

    template <class R>
    __device__ void operator()(R& row, float (&x)[R::K][R::V]) const {
        // Asked for before the sums are taken, which hides their way; kept as they came, in half the registers.
        int64_t group = per_group.quotient(row.index);
        Vector<T, R::V> a[R::K], b[R::K];
        row.load(scale + group * scale_stride, a);
        row.load(shift + group * shift_stride, b);
        float n = static_cast<float>(row.cols), sum = 0;
        row.elements([&](int k, int v) { sum += x[k][v]; });
        // Rounded: contracted into the subtractions, the product would leave more digits than sums of them keep.
        float mean = __fmul_rn(row.sum(sum), inverse);
        // The mean of what is left corrects a sum that rounded far from zero.
        float sums[2] = {0, 0};
        row.elements([&](int k, int v) {
            x[k][v] -= mean;
            sums[0] += x[k][v];
            sums[1] += x[k][v] * x[k][v];
        });
        row.sum(sums);
        float rest = mean_of(sums[0], n, inverse), variance = mean_of(sums[1], n, inverse) - rest * rest;
        variance = variance < 0 ? 0 : variance;  // by rounding, when all elements are equal; keeps NaN
        float scaling = rsqrtf(variance + eps);
        row.vectors([&](int k) {
            float factor[R::V], term[R::V];
            unpack(a[k], factor);
            unpack(b[k], term);
#pragma unroll
            for (int v = 0; v < R::V; ++v)
                x[k][v] = fmaf(x[k][v] - rest, fmaf(factor[v], scaling, scaling), term[v]);
        });
        out(row, x);
    }
};

template <class T>
struct RootMeanSquare {
    const T* weight;                    // null: 1
    float eps, floor, offset, inverse;  // 1 / C
    Activation activation;
    DenseRows<T> out;

    template <class R>
    __device__ void operator()(R& row, float (&x)[R::K][R::V]) const {
        Vector<T, R::V> w[R::K];
        if (weight != nullptr) row.load(weight, w);
        float squares = 0;
        row.elements([&](int k, int v) { squares += x[k][v] * x[k][v]; });
        squares = row.sum(squares);
        float r = floor > 0 ? sqrtf(static_cast<float>(row.cols)) /
                                  (sqrtf(squares) < floor ? floor : sqrtf(squares))
                            : rsqrtf(squares * inverse + eps);
        row.elements([&](int k, int v) { x[k][v] *= r; });
        if (weight != nullptr) {
            row.vectors([&](int k) {
                float factor[R::V];
                unpack(w[k], factor);
#pragma unroll
                for (int v = 0; v < R::V; ++v) x[k][v] *= factor[v] + offset;
            });
        }
        if (activation != Activation::none)
            row.elements([&](int k, int v) { x[k][v] = activated(x[k][v], activation); });
        out(row, x);
    }
};

template <class T, class Args, class Out>
void layer_norm(const char* op, const Args& args, const Out& out) {
    LayerNorm<T, Out> norm{pointer<T>(args.shift),
                           pointer<T>(args.scale),
                           args.shift.row_stride(),
                           args.scale.row_stride(),
                           Divisor(std::max<int64_t>(1, args.x.dim(1) / args.shift.dim(1))),
                           args.eps,
                           1.0f / static_cast<float>(args.x.cols()),
                           out};
    for_rows<T>(op, args.x, vectors_fit(args.shift) && vectors_fit(args.scale), norm);
}

}  // namespace

void layer_norm_modulate(const LayerNormModulateArgs& args) {
    dispatch_cuda("layer_norm_modulate", args.x.dtype(), [&]<class T>() {
        layer_norm<T>("layer_norm_modulate", args, DenseRows<T>{pointer<T>(args.y)});
    });
}

void layer_norm_modulate_fp8(const LayerNormModulateFp8Args& args) {
    dispatch_cuda("layer_norm_modulate_fp8", args.x.dtype(), [&]<class T>() {
        layer_norm<T>("layer_norm_modulate_fp8", args,
                      Fp8Rows{pointer<uint8_t>(args.y.codes), pointer<float>(args.y.scale)});
    });
}

void rms_norm(const RmsNormArgs& args) {
    if (rms_norm_short(args)) return;
    const RmsNormOptions& o = args.options;
    dispatch_cuda("rms_norm", args.x.dtype(), [&]<class T>() {
        RootMeanSquare<T> norm{args.weight.defined() ? pointer<T>(args.weight) : nullptr,
                               o.eps,
                               o.floor,
                               o.weight_offset,
                               1.0f / static_cast<float>(args.x.cols()),
                               o.activation,
                               {pointer<T>(args.y)}};
        for_rows<T>("rms_norm", args.x, !args.weight.defined() || vectors_fit(args.weight), norm);
    });
}

}  // namespace sana::cuda
