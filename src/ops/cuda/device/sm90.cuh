// Hopper's asynchronous units as functions: mbarriers, the bulk tensor copy engine (TMA), clusters and wgmma. PTX ISA 8.x,
// sections of the same names. Only for code compiled for sm_90a.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>
#include <type_traits>

namespace sana::cuda::sm90 {

__device__ __forceinline__ uint32_t shared_address(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

__device__ __forceinline__ uint32_t load_shared(uint32_t address) {
    uint32_t word;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(address));
    return word;
}

__device__ __forceinline__ void barrier_init(uint32_t barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
__device__ __forceinline__ void barrier_expect(uint32_t barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra end;\n"
        "bra again;\n"
        "end:\n"
        "}\n" ::"r"(barrier),
        "r"(parity)
        : "memory");
}
// Arrives at the barrier of the same address in another block of the cluster (or this one). The scope stays the default:
// one of the cluster would make a fence of the whole device of every arrival, and what arrivals tell of here is that the
// tensor cores have read shared memory, which is done when they were waited for.
__device__ __forceinline__ void barrier_arrive_at(uint32_t barrier, uint32_t rank) {
    asm volatile(
        "{\n"
        ".reg .b32 remote;\n"
        "mapa.shared::cluster.u32 remote, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
        "}\n" ::"r"(barrier),
        "r"(rank)
        : "memory");
}

__device__ __forceinline__ uint32_t cluster_rank() {
    uint32_t rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

// Copies a box of a 5-dimensional tensor to shared memory; the barrier counts its bytes.
__device__ __forceinline__ void copy_box_5d(uint32_t to, const CUtensorMap* map, uint32_t barrier, int c0,
                                            int c1, int c2, int c3, int c4) {
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, "
        "{%3,%4,%5,%6,%7}], [%2];" ::"r"(to),
        "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4)
        : "memory");
}
// The same of a 3-dimensional tensor.
__device__ __forceinline__ void copy_box_3d(uint32_t to, const CUtensorMap* map, uint32_t barrier, int c0,
                                            int c1, int c2) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, "
        "{%3,%4,%5}], [%2];" ::"r"(to),
        "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2)
        : "memory");
}
// The same of a 4-dimensional tensor, and of a matrix.
__device__ __forceinline__ void copy_box_4d(uint32_t to, const CUtensorMap* map, uint32_t barrier, int c0,
                                            int c1, int c2, int c3) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, "
        "{%3,%4,%5,%6}], [%2];" ::"r"(to),
        "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
        : "memory");
}
__device__ __forceinline__ void copy_box_2d(uint32_t to, const CUtensorMap* map, uint32_t barrier, int c0,
                                            int c1) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, "
        "{%3,%4}], [%2];" ::"r"(to),
        "l"(map), "r"(barrier), "r"(c0), "r"(c1)
        : "memory");
}
// Copies `bytes` (of 16) as they are.
__device__ __forceinline__ void copy_bulk(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
        "l"(from), "r"(bytes), "r"(barrier)
        : "memory");
}
// Copies a box of shared memory to a 4-dimensional tensor; what lies outside it is not written. Writes of this thread that the
// box has must be behind a store_fence(); store_commit() ends a group, store_wait() waits until shared memory is read.
__device__ __forceinline__ void store_box_4d(const CUtensorMap* map, uint32_t from, int c0, int c1, int c2,
                                             int c3) {
    asm volatile(
        "cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%2,%3,%4,%5}], [%1];" ::"l"(map),
        "r"(from), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
        : "memory");
}
__device__ __forceinline__ void store_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ __forceinline__ void store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
__device__ __forceinline__ void store_wait() {
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}
// Copies a box of a matrix to the same place in every block of the cluster in `mask`, and counts it at each one's barrier.
__device__ __forceinline__ void copy_box_2d_to_all(uint32_t to, const CUtensorMap* map, uint32_t barrier,
                                                   int c0, int c1, uint16_t mask) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, "
        "{%3,%4}], [%2], %5;" ::"r"(to),
        "l"(map), "r"(barrier), "r"(c0), "r"(c1), "h"(mask)
        : "memory");
}

// Barriers of a block by number (0 is __syncthreads()'s): threads that wait and threads that only announce themselves.
__device__ __forceinline__ void named_wait(int barrier, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_arrive(int barrier, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

template <int Registers>
__device__ __forceinline__ void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
__device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}

// Describes rows of `Row` bytes (64 or 128) that the copy engine wrote with the swizzle of that span: K-major operand, the
// 8 rows of a group follow one another, groups begin `pitch` bytes apart. The swizzle goes by addresses, so that a group
// may begin at any row.
template <int Row>
__device__ __forceinline__ uint64_t descriptor(uint32_t address, uint32_t pitch = Row * 8) {
    static_assert(Row == 128 || Row == 64);
    constexpr uint64_t kSwizzle = Row == 128 ? 1 : 2;
    return static_cast<uint64_t>((address & 0x3ffff) >> 4) | (uint64_t{1} << 16) |
           (static_cast<uint64_t>(pitch >> 4) << 32) | (kSwizzle << 62);
}

__device__ __forceinline__ void wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int Pending>
__device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

// Places of a product's registers in its instruction: of the first so many.
#define SANA_PLACES_4 "%0,%1,%2,%3"
#define SANA_PLACES_16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define SANA_PLACES_32 SANA_PLACES_16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define SANA_PLACES_48 SANA_PLACES_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define SANA_PLACES_56 SANA_PLACES_48 ",%48,%49,%50,%51,%52,%53,%54,%55"
#define SANA_PLACES_64 SANA_PLACES_48 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define SANA_PLACES_76 SANA_PLACES_64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75"
#define SANA_PLACES_80 SANA_PLACES_64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"
#define SANA_PLACES_96 SANA_PLACES_80 ",%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define SANA_PLACES_112 \
    SANA_PLACES_96 ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111"
#define SANA_PLACES_128 \
    SANA_PLACES_112 ",%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define SANA_R4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SANA_R16(i) SANA_R4(i), SANA_R4(i + 4), SANA_R4(i + 8), SANA_R4(i + 12)
#define SANA_WGMMA(N, TYPE, END, PLACES, A, B, ADD, ...)                                                    \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" ADD ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N TYPE \
                 " {" PLACES "}, %" A ", %" B ", p, 1, 1" END ";\n}\n"                                      \
                 : __VA_ARGS__                                                                              \
                 : "l"(a), "l"(b), "r"(add))
#define SANA_WGMMA_BOTH(N, PLACES, A, B, ADD, ...)                                    \
    if constexpr (std::is_same_v<T, __nv_bfloat16>) {                                 \
        SANA_WGMMA(N, "k16.f32.bf16.bf16", ", 0, 0", PLACES, A, B, ADD, __VA_ARGS__); \
    } else if constexpr (std::is_same_v<T, __nv_fp8_e4m3>) {                          \
        SANA_WGMMA(N, "k32.f32.e4m3.e4m3", "", PLACES, A, B, ADD, __VA_ARGS__);       \
    } else {                                                                          \
        SANA_WGMMA(N, "k16.f32.f16.f16", ", 0, 0", PLACES, A, B, ADD, __VA_ARGS__);   \
    }

// sums[64 x N] (+)= A[64 x K] B[N x K]^T, K of 32 bytes (16 of 16 bits, 32 of E4M3), both from shared memory; sums in the
// fragment layout of wgmma: thread t of the warpgroup holds, for column pair j, rows (t/32)*16 + (t%32)/4 (+ 8 for elements 2,
// 3), columns 8*j + 2*(t%4) (+1).
template <class T, int N>
__device__ __forceinline__ void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, int add) {
    static_assert(N == 8 || N == 32 || N == 64 || N == 96 || N == 128 || N == 192 || N == 224 || N == 256);
    if constexpr (N == 8) {
        SANA_WGMMA_BOTH(8, SANA_PLACES_4, "4", "5", "6", SANA_R4(0))
    } else if constexpr (N == 32) {
        SANA_WGMMA_BOTH(32, SANA_PLACES_16, "16", "17", "18", SANA_R16(0))
    } else if constexpr (N == 64) {
        SANA_WGMMA_BOTH(64, SANA_PLACES_32, "32", "33", "34", SANA_R16(0), SANA_R16(16))
    } else if constexpr (N == 96) {
        SANA_WGMMA_BOTH(96, SANA_PLACES_48, "48", "49", "50", SANA_R16(0), SANA_R16(16), SANA_R16(32))
    } else if constexpr (N == 128) {
        SANA_WGMMA_BOTH(128, SANA_PLACES_64, "64", "65", "66", SANA_R16(0), SANA_R16(16), SANA_R16(32),
                        SANA_R16(48))
    } else if constexpr (N == 192) {
        SANA_WGMMA_BOTH(192, SANA_PLACES_96, "96", "97", "98", SANA_R16(0), SANA_R16(16), SANA_R16(32),
                        SANA_R16(48), SANA_R16(64), SANA_R16(80))
    } else if constexpr (N == 224) {
        SANA_WGMMA_BOTH(224, SANA_PLACES_112, "112", "113", "114", SANA_R16(0), SANA_R16(16), SANA_R16(32),
                        SANA_R16(48), SANA_R16(64), SANA_R16(80), SANA_R16(96))
    } else {
        SANA_WGMMA_BOTH(256, SANA_PLACES_128, "128", "129", "130", SANA_R16(0), SANA_R16(16), SANA_R16(32),
                        SANA_R16(48), SANA_R16(64), SANA_R16(80), SANA_R16(96), SANA_R16(112))
    }
}

#undef SANA_WGMMA_BOTH
#undef SANA_WGMMA
#undef SANA_R16
#undef SANA_R4

}  // namespace sana::cuda::sm90
