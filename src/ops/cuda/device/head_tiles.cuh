// Small matrices of heads of 32 channels as a warp has them: tiles of 16 tokens and squares of 32 x 32 in shared memory,
// their products by the 16-bit matrix units, halves of a token's channels in registers.
#pragma once

#include "ops/cuda/device/element.cuh"
#include "ops/cuda/device/mma.cuh"

namespace sana::cuda::heads {

constexpr int kWidth = 32, kHalf = 16, kRows = 16;
// Rows of matrices in shared memory: 16 bytes more than their elements take, so that eight of them start in other banks.
constexpr int kPitch = 2 * kWidth + 16, kTile = kRows * kPitch;

using Sums = float[4][4];       // 16 x 32, a lane's part of the fragments
using Square = float[2][4][4];  // 32 x 32

// left^T right over the 16 tokens of two tiles.
__device__ __forceinline__ void add_products(Square& sums, uint32_t left, uint32_t right, int lane) {
    uint32_t b[2][4];
#pragma unroll
    for (int d = 0; d < 2; ++d)
        load_matrices_transposed(b[d], right + lane % 16 * kPitch + lane / 16 * 16 + d * 32);
#pragma unroll
    for (int m = 0; m < 2; ++m) {
        uint32_t a[4];
        load_matrices_transposed(a, left + (lane / 16 * 8 + lane % 8) * kPitch + lane / 8 % 2 * 16 + m * 32);
#pragma unroll
        for (int d = 0; d < 2; ++d) {
            mma<bf16_t>(sums[m][2 * d], a, b[d][0], b[d][1]);
            mma<bf16_t>(sums[m][2 * d + 1], a, b[d][2], b[d][3]);
        }
    }
}

// Every row x of a tile becomes S x, or S^T x.
template <bool Transposed>
__device__ __forceinline__ void multiply(Sums& out, uint32_t tile, uint32_t square, int lane) {
#pragma unroll
    for (int n = 0; n < 4; ++n) out[n][0] = out[n][1] = out[n][2] = out[n][3] = 0;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
        uint32_t a[4];
        load_matrices(a, tile + lane % 16 * kPitch + lane / 16 * 16 + k * 32);
#pragma unroll
        for (int d = 0; d < 2; ++d) {
            uint32_t b[4];
            if constexpr (Transposed) {
                load_matrices_transposed(b, square + (k * 16 + lane % 16) * kPitch + lane / 16 * 16 + d * 32);
            } else {
                load_matrices(
                    b, square + (d * 16 + lane / 16 * 8 + lane % 8) * kPitch + lane / 8 % 2 * 16 + k * 32);
            }
            mma<bf16_t>(out[2 * d], a, b[0], b[1]);
            mma<bf16_t>(out[2 * d + 1], a, b[2], b[3]);
        }
    }
}

// 16 channels of a token, as they lie in memory.
struct Half {
    uint4 low, high;
};
__device__ __forceinline__ Half read(const bf16_t* from) {
    auto* vectors = reinterpret_cast<const uint4*>(from);
    return {vectors[0], vectors[1]};
}
__device__ __forceinline__ void write(void* to, const Half& x) {
    static_cast<uint4*>(to)[0] = x.low;
    static_cast<uint4*>(to)[1] = x.high;
}
__device__ __forceinline__ uint32_t word(const Half& x, int i) {
    const uint4& v = i < 4 ? x.low : x.high;
    return i % 4 == 0 ? v.x : i % 4 == 1 ? v.y : i % 4 == 2 ? v.z : v.w;
}
__device__ __forceinline__ void set_word(Half& x, int i, uint32_t value) {
    uint4& v = i < 4 ? x.low : x.high;
    (i % 4 == 0 ? v.x : i % 4 == 1 ? v.y : i % 4 == 2 ? v.z : v.w) = value;
}

}  // namespace sana::cuda::heads
