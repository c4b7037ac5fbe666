// Products on Hopper's tensor cores with everything that follows them done before the one rounding: of bf16, or of E4M3
// with a scale a row of x and a row of w. Rows of x may be read several times, shifted: a convolution over frames is a
// product too.
#pragma once

#include "core/tensor.h"
#include "ops/linear.h"

namespace sana::cuda {

// y[b,i,:] = residual[b,i,:] + gate * activation(sum over taps k of x[b, i + k*tap_step - before, :] w[:,k,:]^T + bias +
// identity[b,i,:]); rows outside x read as zero. Sums in fp32, one rounding to bf16.
// E4M3: x stands for x * x_scale of its row, w for w * w_scale of its row.
struct HopperProduct {
    DType dtype = DType::BF16;  // of x and w: BF16 or F8E4M3; everything else is bf16
    Device device;
    int64_t batch = 1, x_rows = 0, y_rows = 0;  // rows a sample
    int64_t channels = 0, width = 0;            // C, N

    const void* x = nullptr;  // [batch, x_rows, C]
    int64_t x_stride = 0;     // elements between rows
    const void* w = nullptr;  // [N, taps, C] dense
    int64_t taps = 1, before = 0, tap_step = 0;
    const float *x_scale = nullptr, *w_scale = nullptr;  // [batch, x_rows], [N]

    void* y = nullptr;  // [batch * y_rows, N]
    int64_t y_stride = 0;
    const void* bias = nullptr;
    const void* identity = nullptr;
    int64_t identity_stride = 0;
    Activation activation = Activation::none;
    const void* gate = nullptr;  // [B,G,N]: row r of y belongs to sample r / tokens
    int64_t gate_stride = 0, tokens = 1, groups = 1;
    const void* residual = nullptr;
    int64_t residual_stride = 0;
};

// False when the device, the dtype or an alignment (16 bytes) does not suit the kernel; then nothing was done.
bool hopper_product(const HopperProduct& p);

}  // namespace sana::cuda
