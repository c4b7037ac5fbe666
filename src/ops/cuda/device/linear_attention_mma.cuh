// What the tensor core kernels of linear attention share: numbers in the range of 16-bit types, and what reduce leaves for
// apply.
#pragma once

#include "ops/cuda/device/linear_attention.cuh"
#include "ops/cuda/device/mma.cuh"

namespace sana::cuda {

struct PairFactors {
    float w0, w1, s0, s1;
};

// What apply needs of a head, as it has it in shared memory.
template <int Width, int Terms>
struct alignas(16) HeadState {
    // kv rounded to `Terms` terms of fp16, [v channel][k~ channel], divided by `columns`; rows a bank apart.
    f16_t kv[Terms][Width][Width + 8];
    PairFactors
        pairs[Width / 2];  // for every pair of channels the scaled weights of q's norm and the sums of k
    float columns[Width];  // factors of y's columns
    float eps, unused[3];  // in the scale of the weights
};

}  // namespace sana::cuda
