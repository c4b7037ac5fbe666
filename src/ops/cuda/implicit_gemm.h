// Products whose left operand is not a matrix in memory but a window sliding over a grid: linear layers (no window),
// convolutions over frames, rows and columns. For Hopper (sm_90a) and bf16.
#pragma once

#include <array>

#include "core/tensor.h"
#include "ops/linear.h"

namespace sana::cuda {

// y[i,:] = residual[i,:] + gate * activation(sum over taps k of x[i + k - before,:] w[:,k,:]^T + bias + identity[i,:])
// for grid positions i = (i1, i2, i3, i4), i1 fastest; what lies outside x reads as zero. Sums in fp32, one rounding.
struct ImplicitGemm {
    DType dtype = DType::BF16;
    Device device;
    int64_t channels = 0, width = 0;  // C, N

    const void* x = nullptr;               // [X4,X3,X2,X1,C]
    std::array<int64_t, 4> x_size = {};    // X1 .. X4
    std::array<int64_t, 4> x_stride = {};  // elements between neighbours
    const void* past = nullptr;  // [X4,past_size,X2,X1,C] dense: what lies before x on axis 3, or null
    int64_t past_size = 0;

    const void* w = nullptr;  // [N, K3,K2,K1, C] dense
    int64_t w_rows = 0;       // when w has fewer rows than N: the others count as zero; 0: N
    // On axis 1 taps are tap_step positions apart.
    std::array<int64_t, 3> taps = {1, 1, 1}, before = {0, 0, 0};
    int64_t tap_step = 1;

    void* y = nullptr;  // [Y4,Y3,Y2,Y1,N]
    std::array<int64_t, 4> y_size = {};
    int64_t y_stride = 0;  // between neighbours of the flattened grid, as are those below

    const void* bias = nullptr;
    const void* identity = nullptr;
    int64_t identity_stride = 0;
    Activation activation = Activation::none;
    const void* gate = nullptr;  // [B,G,N]: position p of the flattened grid belongs to sample p / tokens
    int64_t gate_stride = 0, tokens = 1, groups = 1;
    const void* residual = nullptr;
    int64_t residual_stride = 0;
};

// False when the device, the dtype or an alignment (16 bytes) does not suit the kernel; then nothing was done.
bool implicit_gemm(const ImplicitGemm& p);

}  // namespace sana::cuda
