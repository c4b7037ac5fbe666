// Forms of wgmma beside that of device/sm90.cuh: products that begin a sum, and those with the left operand in registers.
// Only for code compiled for sm_90a.
#pragma once

#include "ops/cuda/device/sm90.cuh"

namespace sana::cuda::sm90 {

// Registers of products that were waited for: what reads them stays behind the wait.
template <class T, int Count>
__device__ __forceinline__ void settled(T (&registers)[Count]) {
#pragma unroll
    for (int i = 0; i < Count; ++i) {
        if constexpr (std::is_same_v<T, float>) {
            asm volatile("" : "+f"(registers[i])::"memory");
        } else {
            asm volatile("" : "+r"(registers[i])::"memory");
        }
    }
}

// Products that begin a sum (Begin) have their registers as results only: nothing was in them that the compiler would keep.
#define SANA_R4(C, i) C(d[i]), C(d[i + 1]), C(d[i + 2]), C(d[i + 3])
#define SANA_R16(C, i) SANA_R4(C, i), SANA_R4(C, i + 4), SANA_R4(C, i + 8), SANA_R4(C, i + 12)
#define SANA_R16_FIRST(C) SANA_R16(C, 0)
#define SANA_R32(C) SANA_R16(C, 0), SANA_R16(C, 16)
#define SANA_R48(C) SANA_R32(C), SANA_R16(C, 32)
#define SANA_R56(C) SANA_R48(C), SANA_R4(C, 48), SANA_R4(C, 52)
#define SANA_R64(C) SANA_R48(C), SANA_R16(C, 48)
#define SANA_R76(C) SANA_R64(C), SANA_R4(C, 64), SANA_R4(C, 68), SANA_R4(C, 72)

#define SANA_KEYS(N, PLACES, A, B, REGISTERS)                                                             \
    if constexpr (Begin) {                                                                                \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" PLACES "}, %" A ", %" B \
                     ", 0, 1, 1, 0, 0;\n"                                                                 \
                     : REGISTERS("=f")                                                                    \
                     : "l"(a), "l"(b));                                                                   \
    } else {                                                                                              \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" PLACES "}, %" A ", %" B \
                     ", 1, 1, 1, 0, 0;\n"                                                                 \
                     : REGISTERS("+f")                                                                    \
                     : "l"(a), "l"(b));                                                                   \
    }
#define SANA_VALUES(N, PLACES, A, B, REGISTERS)                                                          \
    if constexpr (Begin) {                                                                               \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.f16.f16 {" PLACES "}, {" A "}, %" B \
                     ", 0, 1, 1, 0;\n"                                                                   \
                     : REGISTERS("=f")                                                                   \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                              \
    } else {                                                                                             \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.f16.f16 {" PLACES "}, {" A "}, %" B \
                     ", 1, 1, 1, 0;\n"                                                                   \
                     : REGISTERS("+f")                                                                   \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                              \
    }

// sums[64 x N] (+)= A[64 x 16] B[N x 16]^T in bf16, both from shared memory, as wgmma() of sm90.cuh.
template <int N, bool Begin>
__device__ __forceinline__ void multiply_bf16(float (&d)[N / 2], uint64_t a, uint64_t b) {
    static_assert(N == 32 || N == 64 || N == 96 || N == 128 || N == 152);
    if constexpr (N == 32) {
        SANA_KEYS(32, SANA_PLACES_16, "16", "17", SANA_R16_FIRST)
    } else if constexpr (N == 64) {
        SANA_KEYS(64, SANA_PLACES_32, "32", "33", SANA_R32)
    } else if constexpr (N == 96) {
        SANA_KEYS(96, SANA_PLACES_48, "48", "49", SANA_R48)
    } else if constexpr (N == 128) {
        SANA_KEYS(128, SANA_PLACES_64, "64", "65", SANA_R64)
    } else {
        SANA_KEYS(152, SANA_PLACES_76, "76", "77", SANA_R76)
    }
}

// The same in fp16, A from registers in the layout of mma.m16n8k16, a warp's 16 rows each.
template <int N, bool Begin>
__device__ __forceinline__ void multiply_fp16(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b) {
    static_assert(N == 64 || N == 112 || N == 128);
    if constexpr (N == 64) {
        SANA_VALUES(64, SANA_PLACES_32, "%32,%33,%34,%35", "36", SANA_R32)
    } else if constexpr (N == 112) {
        SANA_VALUES(112, SANA_PLACES_56, "%56,%57,%58,%59", "60", SANA_R56)
    } else {
        SANA_VALUES(128, SANA_PLACES_64, "%64,%65,%66,%67", "68", SANA_R64)
    }
}

#undef SANA_VALUES
#undef SANA_KEYS
#undef SANA_R76
#undef SANA_R64
#undef SANA_R56
#undef SANA_R48
#undef SANA_R32
#undef SANA_R16_FIRST
#undef SANA_R16
#undef SANA_R4

}  // namespace sana::cuda::sm90
