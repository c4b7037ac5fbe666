// Matrix products of the CUDA backend.
#pragma once

#include "core/tensor.h"
#include "ops/linear.h"

namespace sana::cuda {

// Rows of a matrix in device memory, `stride` elements apart.
struct Matrix {
    void* data = nullptr;
    int64_t stride = 0;
};

// y[M,N] = x[M,K] w[N,K]^T (+ bias[N]) (+ c[M,N]), summed in fp32 and rounded once; x, w and bias of `dtype`, y and c of
// `y_dtype` (dtype or fp32). c may be y. By cuBLASLt:
// its fastest kernel for the shape, timed once where that pays and remembered (ops/choices.h), else its first choice.
struct Product {
    DType dtype = DType::F32, y_dtype = DType::F32;
    int64_t M = 0, N = 0, K = 0;
    Matrix x = {}, w = {}, y = {}, c = {};  // c without data: none
    const void* bias = nullptr;
    Device device;
    // E4M3 (dtype F8E4M3, y_dtype and bias bf16): x stands for x * x_scale of its row, w for w * w_scale of its row.
    const float *x_scale = nullptr, *w_scale = nullptr;  // [M], [N]
    // Stored the other way round: x as [K,M], w as [K,N].
    bool x_transposed = false, w_transposed = false;
    // Several products of the same form; elements from one to the next.
    int64_t batch = 1, x_batch = 0, w_batch = 0, y_batch = 0;  // c goes like y
};
void product(const Product& p);

// Whether the library multiplies rows of E4M3 with scales, and operands are aligned as it asks (16 bytes).
bool has_fp8_product(const Product& p);

// What follows a product: y = residual + gate * activation(sum + bias + identity), rounded once.
struct Finish {
    const Tensor* bias = nullptr;      // [N]
    const Tensor* identity = nullptr;  // [M,N] rows
    Activation activation = Activation::none;
    const Tensor* gate = nullptr;  // [B,G,N]
    int64_t tokens = 1;            // rows a sample
    const Tensor* residual = nullptr;
};

// sums [M,N] fp32, dense -> y's rows.
void finish(const Tensor& sums, const Finish& f, Tensor& y);

inline Matrix matrix(const Tensor& x) { return {x.raw(), x.row_stride()}; }

}  // namespace sana::cuda
