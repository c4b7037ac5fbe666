// Convolutions over video [B,T,H,W,C]. Cross-correlation (no kernel flip), sums in fp32 (fp64 for fp64).
#pragma once

#include "core/tensor.h"
#include "ops/linear.h"

namespace sana {

enum class PadMode { zeros, reflect, replicate };

struct Conv3dOptions {
    std::array<int64_t, 3> stride = {1, 1, 1};
    // Frames, rows, columns added before and after.
    std::array<int64_t, 3> pad_before = {0, 0, 0};
    std::array<int64_t, 3> pad_after = {0, 0, 0};
    PadMode time_mode = PadMode::zeros;   // zeros or replicate (of the first and last frame)
    PadMode space_mode = PadMode::zeros;  // zeros or reflect (without repeating the edge)
    Tensor past = {};                     // [B,P,H,W,C] frames put in front of x before time padding
    Tensor residual = {};                 // added to the result
    bool upsample = false;                // x and past have every pixel doubled in both directions first
};

// y = conv(pad(upsample(past ++ x)), weight) + bias + residual.
// x [B,T,H,W,C], weight [O,KT,KH,KW,C], bias [O] or none -> [B,T',H',W',O] with T' = (T + P + pads - KT) / stride + 1, H' and
// W' likewise, from 2H and 2W when upsampled.
Tensor conv3d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv3dOptions& options);

struct Conv3dArgs {
    const Tensor &x, &weight, &bias;
    const Conv3dOptions& options;
    Tensor& y;
};

// The middle of SANA-Video's Mix-FFN: [a, g] = depthwise3x3(silu(x)) + bias a frame (zero padding 1),
// y = a * silu(g).   x [B,T,H,W,2F], weight [3,3,2F], bias [2F] -> [B,T,H,W,F]
Tensor depthwise_glu(const Tensor& x, const Tensor& weight, const Tensor& bias);

struct DepthwiseGluArgs {
    const Tensor &x, &weight, &bias;
    Tensor& y;
};

// The end of Mix-FFN: y = residual + gate * (x + conv(x)), kernel 3 over frames, full channel mixing, no bias, one zero
// frame at both ends; tap 0 meets the previous frame.   x [B,T,S,C] (S positions a frame), weight [C,3,C]
// past [B,1,S,C]: the last frame of the block before, instead of the zero frame in front. out.gate [B,G,C] over the T*S
// positions; out.activation is not supported.
Tensor temporal_conv(const Tensor& x, const Tensor& weight, const Tensor& past, const Epilogue& out);

struct TemporalConvArgs {
    const Tensor &x, &weight, &past;
    const Epilogue& out;
    Tensor& y;
};

// Every pixel twice in both directions.   [B,T,H,W,C] -> [B,T,2H,2W,C]
Tensor upsample_nearest(const Tensor& x);

// The mean of every 2x2 pixels.   [B,T,2H,2W,C] -> [B,T,H,W,C]
Tensor mean_pixels(const Tensor& x);

struct UpsampleNearestArgs {
    const Tensor& x;
    Tensor& y;
};

}  // namespace sana
