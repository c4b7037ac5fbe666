// Functions of the special function units, with the few bits that they have.
#pragma once

namespace sana::cuda {

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ float reciprocal_fast(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ float tanh_fast(float x) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// x / (1 + exp(-x)) = x/2 (1 + tanh(x/2)), of x/2. The error, 2^-11 |x|/2 at most, is an eighth of what the rounding of x to
// bf16 makes.
__device__ __forceinline__ float silu_of_half(float half) { return fmaf(half, tanh_fast(half), half); }

}  // namespace sana::cuda
