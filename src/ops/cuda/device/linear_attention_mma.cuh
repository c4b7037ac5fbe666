// What the tensor core kernels of linear attention share: numbers in the range of 16-bit types, and what reduce leaves for
// apply.
#pragma once

#include "ops/cuda/device/linear_attention.cuh"
#include "ops/cuda/device/mma.cuh"

namespace sana::cuda {

struct alignas(16) PairFactors {
    float w0, w1, s0, s1;
};

// What apply needs of a head beside kv: for every pair of channels the scaled weights of q's norm and the sums of k, factors of
// y's columns, and eps in the scale of the weights.
template <int Width>
struct alignas(16) HeadFactors {
    PairFactors pairs[Width / 2];
    float columns[Width];
    float eps, unused[3];
};

// A head as apply has it in shared memory. kv is rounded to `Terms` terms of fp16 and divided by the factors of its columns.
template <int Width, int Terms>
struct alignas(16) HeadState {
    static constexpr int kTerms = Terms;
    f16_t kv[Terms][Width][Width + 8];  // [v channel][k~ channel]; rows a bank apart
    HeadFactors<Width> factors;

    __device__ f16_t& at(int term, int v, int k) { return kv[term][v][k]; }
};

}  // namespace sana::cuda
