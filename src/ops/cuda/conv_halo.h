// Convolutions of stride 1 over the rows and columns of video, one or three frames deep, for Hopper (sm_90a) and bf16: the
// input of a tile is loaded once with its halo, not once a tap.
#pragma once

#include <array>

#include "core/tensor.h"

namespace sana::cuda {

// y[b,t,h,w,:] = bias + residual[b,t,h,w,:] + sum over taps k of (past ++ x)[b, (t,h,w) + k - before, :] w[:,k,:]^T.
// What lies outside reads as zero. Sums in fp32, one rounding.
struct HaloConv {
    Device device;
    int64_t channels = 0, width = 0;  // C, O

    const void* x = nullptr;             // [B,T,H,W,C] dense
    std::array<int64_t, 4> x_size = {};  // W, H, T, B
    const void* past = nullptr;          // [B,P,H,W,C] dense, or null
    int64_t past_size = 0;               // P

    // Of results there are scale x scale a position of x; with 2, w holds the taps of each of the four, [4,O,KT,2,2,C], upper
    // left first, and those of the right or lower ones begin one column or row later.
    int64_t scale = 1;
    const void* w = nullptr;                        // [O, KT,KH,KW, C] dense
    std::array<int64_t, 3> taps = {}, before = {};  // columns, rows, frames
    bool reflect = false;  // outside in space, by at most one row and column, lies what is as far inside
    bool repeat_frames = false;  // outside in time lies the nearest frame instead of zero

    void* y = nullptr;                   // [B,T',scale*H',scale*W',O] dense
    std::array<int64_t, 4> y_size = {};  // W', H', T', B, without the scale
    const void* bias = nullptr;          // [O]
    const void* residual = nullptr;      // like y
};

// False when the device, a size or an alignment (16 bytes) does not suit the kernel; then nothing was done.
bool conv_halo(const HaloConv& p);

}  // namespace sana::cuda
