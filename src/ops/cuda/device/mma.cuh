// Warp-wide units that every card from Ampere on has, as functions: asynchronous copies to shared memory, loads of matrix
// fragments, the 16-bit matrix product. PTX ISA 7.x, sections cp.async, ldmatrix, mma.m16n8k16.
// Fragments, for lane l with g = l / 4 and c = 2 * (l % 4), two elements a register, the lower column in the lower half:
//   A [16 x 16]: (g, c), (g + 8, c), (g, c + 8), (g + 8, c + 8);  B [16 x 8]: (c, g), (c + 8, g), pairs along the rows;
//   C [16 x 8] fp32: (g, c), (g, c + 1), (g + 8, c), (g + 8, c + 1).
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace sana::cuda {

// Copies 16 bytes, or writes 16 zeros when not `there` (`from` is not read then).
__device__ __forceinline__ void copy_async(uint32_t to, const void* from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0)
                 : "memory");
}
// Waits for all of this thread's copies.
__device__ __forceinline__ void copy_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }
// Ends a group of copies; waits for all groups but the `Pending` last ones.
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int Pending>
__device__ __forceinline__ void copy_wait_but() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

// This thread's part in copying rows of `Vectors` 16-byte vectors to shared memory, `Pitch` bytes apart, by `Threads` threads:
// one vector of every kStep-th row. Its column is fixed, so that a copy costs few instructions; where a row is not a power of
// two long, or the threads do not make whole rows, some have none.
template <int Vectors, int Pitch, int Threads>
struct RowCopy {
    static constexpr bool kWhole = Threads % Vectors == 0;
    static constexpr int kSpan = kWhole ? Vectors : static_cast<int>(std::bit_ceil(unsigned{Vectors})),
                         kStep = Threads / kSpan;
    int row, vector;
    bool used;
    uint32_t to;  // bytes behind the first row

    __device__ RowCopy()
        : row(static_cast<int>(threadIdx.x) / kSpan),
          vector(static_cast<int>(threadIdx.x) % kSpan),
          used(vector < Vectors && row < kStep),
          to(row * Pitch + vector * 16) {}

    // Rows up to `last` of `from`, strides in bytes; those behind it are copies of it.
    template <int Rows>
    __device__ __forceinline__ void copy(uint32_t tile, const void* from, int64_t stride, int last) const {
        if (!used) return;
        const uint8_t* source = static_cast<const uint8_t*>(from) + vector * 16;
#pragma unroll
        for (int i = 0; i < (Rows + kStep - 1) / kStep; ++i) {
            int r = row + i * kStep;
            if (Rows % kStep != 0 && r >= Rows) return;
            copy_async(tile + to + i * kStep * Pitch, source + min(r, last) * stride, true);
        }
    }
};

// Four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8, and gets of each its row g, columns c, c + 1.
__device__ __forceinline__ void load_matrices(uint32_t (&out)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
}
// The same of the transposed matrices: rows c, c + 1 of column g.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&out)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
}

// The inverse of load_matrices(), from Hopper on.
__device__ __forceinline__ void store_matrices(uint32_t address, const uint32_t (&matrices)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(address),
                 "r"(matrices[0]), "r"(matrices[1]), "r"(matrices[2]), "r"(matrices[3])
                 : "memory");
}

// An 8 x 8 matrix in registers (of row g columns c, c + 1) transposed.
__device__ __forceinline__ uint32_t transposed(uint32_t matrix) {
    uint32_t out;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(matrix));
    return out;
}

template <class T>
__device__ __forceinline__ void mma(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    if constexpr (std::is_same_v<T, __nv_bfloat16>) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
            "{%0,%1,%2,%3};"
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    } else {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
            "{%0,%1,%2,%3};"
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
}

// Two floats rounded to T in one register.
template <class T>
__device__ __forceinline__ uint32_t pack(float low, float high) {
    uint32_t out;
    if constexpr (std::is_same_v<T, __nv_bfloat16>) {
        __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
        memcpy(&out, &pair, 4);
    } else {
        __half2 pair = __floats2half2_rn(low, high);
        memcpy(&out, &pair, 4);
    }
    return out;
}

template <class T>
__device__ __forceinline__ float2 unpack(uint32_t pair) {
    if constexpr (std::is_same_v<T, __nv_bfloat16>) {
        return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
    } else {
        __half2 halves;
        memcpy(&halves, &pair, 4);
        return __half22float2(halves);
    }
}

// Two floats as the sum of `Terms` rounded pairs.
template <class T, int Terms>
__device__ __forceinline__ void split_terms(float2 x, uint32_t (&terms)[Terms]) {
#pragma unroll
    for (int t = 0; t < Terms; ++t) {
        terms[t] = pack<T>(x.x, x.y);
        float2 rounded = unpack<T>(terms[t]);
        x.x -= rounded.x;
        x.y -= rounded.y;
    }
}

// The power of two that brings finite numbers of up to `largest` just below 2^14, so that fp16 holds them, and their sums in
// pairs, with all of its bits; 1 where there are none but zero.
constexpr int kHalfExponent = 14;
__device__ __forceinline__ float scale_to_half(float largest) {
    if (!(largest > 0) || largest == INFINITY) return 1.0f;
    int exponent = min(max(kHalfExponent - 1 - ilogbf(largest), -126), 126);
    return __int_as_float((exponent + 127) << 23);
}

// 2^x to 2 units in the last place of fp32.
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

}  // namespace sana::cuda
