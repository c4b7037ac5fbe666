// What the kernels of linear attention for Hopper share (heads of 112, bf16): products by wgmma whose first operand is made in
// registers, and boxes of a head's columns as the copy engine leaves them in shared memory.
#pragma once

#include "ops/cuda/device/linear_attention_mma.cuh"
#include "ops/cuda/device/sm90.cuh"

namespace sana::cuda {

// A head's 112 columns are two boxes of 64, the last 16 columns of which are zeros: rows of 128 bytes, swizzled by 8 rows.
constexpr int kHopperWidth = 112, kBoxRow = 128, kHopperSteps = kHopperWidth / 16;

// A head as apply has it: kv in 8 x 8 tiles that wgmma reads without conflicts, a column of tiles after another.
struct alignas(16) HopperHead {
    static constexpr int kTerms = 1;
    f16_t kv[kHopperWidth / 8][kHopperWidth][8];  // [k~ channel / 8][v channel][k~ channel % 8]
    HeadFactors<kHopperWidth> factors;

    __device__ f16_t& at(int, int v, int k) { return kv[k / 8][v][k % 8]; }
};
constexpr int kHopperKv = sizeof(HopperHead::kv), kHopperFactors = sizeof(HeadFactors<kHopperWidth>);
static_assert(sizeof(HopperHead) == kHopperKv + kHopperFactors);

// The k-th 16 channels of kv: K-major, no swizzle. Tiles of 128 bytes follow one another along N.
__device__ __forceinline__ uint64_t kv_descriptor(uint32_t kv, int k) {
    constexpr uint64_t kColumn = kHopperWidth * 16;
    return static_cast<uint64_t>((kv + 2 * k * static_cast<uint32_t>(kColumn)) >> 4) | (kColumn >> 4) << 16 |
           uint64_t{128 >> 4} << 32;
}

// 16 tokens of v as the transposed operand; `boxes` bytes from the first columns' box to the second.
template <int Boxes>
__device__ __forceinline__ uint64_t values_descriptor(uint32_t v) {
    return static_cast<uint64_t>(v >> 4) | uint64_t{Boxes >> 4} << 16 | uint64_t{8 * kBoxRow >> 4} << 32 |
           uint64_t{1} << 62;
}

// The address of the 16 bytes of columns [8 * chunk, 8 * chunk + 8) behind those of `lane` (a row's address with its own
// chunk, swizzled, in it); `boxes` as above.
__device__ __forceinline__ uint32_t chunk_address(uint32_t lane, int chunk, int boxes) {
    return (lane ^ static_cast<uint32_t>(chunk % 8 * 16)) + static_cast<uint32_t>(chunk / 8 * boxes);
}
__device__ __forceinline__ uint32_t lane_address(uint32_t box, int row, int chunk) {
    return box + static_cast<uint32_t>(row * kBoxRow + (chunk ^ row % 8) * 16);
}

#define SANA_4(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define SANA_WGMMA(TYPE, TURNED)                                                                             \
    asm volatile(                                                                                            \
        "{\n.reg .pred p;\nsetp.ne.b32 p, %61, 0;\n"                                                         \
        "wgmma.mma_async.sync.aligned.m64n112k16.f32." TYPE " {" SANA_PLACES_56                              \
        "}, {%56,%57,%58,%59}, %60, p, 1, 1, " TURNED ";\n}\n"                                               \
        : SANA_4(0), SANA_4(1), SANA_4(2), SANA_4(3), SANA_4(4), SANA_4(5), SANA_4(6), SANA_4(7), SANA_4(8), \
          SANA_4(9), SANA_4(10), SANA_4(11), SANA_4(12), SANA_4(13)                                          \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(Add))

// d[64 x 112] = A B, added to what d has where `Add`: A is of the fragments (device/mma.cuh) of four warps. B is f16 along K,
// or, for bf16, along N.
template <class T, int Add>
__device__ __forceinline__ void wgmma_112(float (&d)[kHopperWidth / 8][4], const uint32_t (&a)[4],
                                          uint64_t b) {
    if constexpr (std::is_same_v<T, bf16_t>) {
        SANA_WGMMA("bf16.bf16", "1");
    } else {
        SANA_WGMMA("f16.f16", "0");
    }
}

#undef SANA_WGMMA
#undef SANA_4

// Keeps the compiler from moving uses of results before the wait for them.
__device__ __forceinline__ void results_are_there(float (&d)[kHopperWidth / 8][4]) {
#pragma unroll
    for (int i = 0; i < kHopperWidth / 8; ++i) {
        asm volatile("" : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])::"memory");
    }
}

// q~ of a warp's 16 tokens as A operands, of q in boxes; q: the lane's address of row lane % 16, chunk lane / 16.
__device__ __forceinline__ void hopper_queries(uint32_t q, int boxes, const HeadFactors<kHopperWidth>& f,
                                               const float (&r)[2],
                                               const float2 (&angles)[2][kHopperSteps][2],
                                               float (&normaliser)[2], uint32_t (&a)[kHopperSteps][1][4]) {
#pragma unroll
    for (int k = 0; k < kHopperSteps; ++k) {
        uint32_t raw[4];
        load_matrices(raw, chunk_address(q, 2 * k, boxes));
        query_features<bf16_t, 1, kHopperWidth>(raw, f, k, r, angles, normaliser, a[k]);
    }
}

// sums = kv q~ of the warpgroup's 64 tokens, begun; wgmma_wait() ends it.
__device__ __forceinline__ void begin_product(float (&sums)[kHopperWidth / 8][4],
                                              const uint32_t (&a)[kHopperSteps][1][4], uint32_t kv) {
    sm90::wgmma_begin();
    wgmma_112<f16_t, 0>(sums, a[0][0], kv_descriptor(kv, 0));
#pragma unroll
    for (int k = 1; k < kHopperSteps; ++k) wgmma_112<f16_t, 1>(sums, a[k][0], kv_descriptor(kv, k));
    sm90::wgmma_commit();
}

// Puts a head's y of the warp's 16 rows where its q was; see(row half, two rounded values).
template <class See>
__device__ __forceinline__ void put_boxes(uint32_t q, int boxes, const HeadFactors<kHopperWidth>& f,
                                          const float (&sums)[kHopperWidth / 8][4],
                                          const float (&normaliser)[2], See see) {
    float inverse[2] = {inverse_of(normaliser[0], f.eps), inverse_of(normaliser[1], f.eps)};
#pragma unroll
    for (int k = 0; k < kHopperSteps; ++k) {
        uint32_t out[4];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            int n = 2 * k + e;
            float2 column = *reinterpret_cast<const float2*>(&f.columns[n * 8 + 2 * (threadIdx.x % 4)]);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                out[2 * e + half] = pack<bf16_t>(sums[n][2 * half] * inverse[half] * column.x,
                                                 sums[n][2 * half + 1] * inverse[half] * column.y);
                see(half, out[2 * e + half]);
            }
        }
        store_matrices(chunk_address(q, 2 * k, boxes), out);
    }
}

}  // namespace sana::cuda
