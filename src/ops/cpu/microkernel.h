// A small matrix product for tiles that live in cache, single-threaded: the core of both attentions.
#pragma once

#include <algorithm>
#include <cstdint>

namespace sana::cpu {

// c[m,n] += sum_k a(m,k) b[k,n], a(m,k) = a[m*a_m + k*a_k], rows of b and c dense with leading dimensions ldb, ldc.
// Tiles of 8 x 16 accumulate in registers; each sum runs over k in order, so results do not depend on tiling.
template <int M, class T>
void small_gemm_tile(int64_t n, int64_t k, const T* a, int64_t a_m, int64_t a_k, const T* b, int64_t ldb,
                     T* c, int64_t ldc) {
    constexpr int kWide = 16;
    T sum[M][kWide] = {};
    if (n == kWide) {
        for (int64_t p = 0; p < k; ++p) {
            const T* row = b + p * ldb;
            for (int i = 0; i < M; ++i) {
                T factor = a[i * a_m + p * a_k];
#pragma omp simd
                for (int j = 0; j < kWide; ++j) sum[i][j] += factor * row[j];
            }
        }
    } else {
        for (int64_t p = 0; p < k; ++p) {
            const T* row = b + p * ldb;
            for (int i = 0; i < M; ++i) {
                T factor = a[i * a_m + p * a_k];
                for (int j = 0; j < n; ++j) sum[i][j] += factor * row[j];
            }
        }
    }
    for (int i = 0; i < M; ++i) {
        for (int j = 0; j < n; ++j) c[i * ldc + j] += sum[i][j];
    }
}

template <class T>
void small_gemm(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_m, int64_t a_k, const T* b,
                int64_t ldb, T* c, int64_t ldc) {
    for (int64_t j = 0; j < n; j += 16) {
        int64_t wide = std::min<int64_t>(16, n - j);
        int64_t i = 0;
        for (; i + 8 <= m; i += 8) {
            small_gemm_tile<8>(wide, k, a + i * a_m, a_m, a_k, b + j, ldb, c + i * ldc + j, ldc);
        }
        for (; i < m; ++i)
            small_gemm_tile<1>(wide, k, a + i * a_m, a_m, a_k, b + j, ldb, c + i * ldc + j, ldc);
    }
}

}  // namespace sana::cpu
