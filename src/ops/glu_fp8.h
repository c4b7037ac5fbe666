// The middle of SANA-Video's Mix-FFN, stored as E4M3 for the product behind it.
#pragma once

#include <array>

#include "ops/fp8.h"

namespace sana {

// depthwise_glu (ops/conv.h) to codes of one scale: the smallest power of two with which 32 times the largest magnitude
// among the results of the sampled rows (glu_sample()) is at most 448; beyond that codes saturate. E4M3 has 15 binades of
// full precision, so that the headroom costs none, and no pass over the results has to know their maximum.
Fp8 depthwise_glu_fp8(const Tensor& x, const Tensor& weight, const Tensor& bias);

// The rows of x [B,T,H,W,2F] that the scale is taken from: six in the middle of the first frame and of the one halfway.
struct GluSample {
    std::array<int64_t, 2> frames;  // of B*T
    int64_t first_row, rows;
};
GluSample glu_sample(const Shape& x);

struct DepthwiseGluFp8Args {
    const Tensor &x, &weight, &bias;
    Fp8& y;  // [B,T,H,W,F]
};

}  // namespace sana
