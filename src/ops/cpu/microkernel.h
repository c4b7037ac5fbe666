// A small matrix product for tiles that live in cache, single-threaded: the core of both attentions.
#pragma once

#include <algorithm>
#include <cstdint>

namespace sana::cpu {

// M x W sums in registers; W a multiple of the vector width. Sums run over k in order, so results do not depend on tiling.
template <int M, int W, class T>
void small_gemm_tile(int64_t k, const T* a, int64_t a_m, int64_t a_k, const T* b, int64_t ldb, T* c,
                     int64_t ldc) {
    T sum[M][W] = {};
    for (int64_t p = 0; p < k; ++p) {
        const T* row = b + p * ldb;
        for (int i = 0; i < M; ++i) {
            T factor = a[i * a_m + p * a_k];
#pragma omp simd
            for (int j = 0; j < W; ++j) sum[i][j] += factor * row[j];
        }
    }
    for (int i = 0; i < M; ++i) {
#pragma omp simd
        for (int j = 0; j < W; ++j) c[i * ldc + j] += sum[i][j];
    }
}

// W columns for all rows, eight rows at a time.
template <int W, class T>
void small_gemm_columns(int64_t m, int64_t k, const T* a, int64_t a_m, int64_t a_k, const T* b, int64_t ldb,
                        T* c, int64_t ldc) {
    int64_t i = 0;
    for (; i + 8 <= m; i += 8) small_gemm_tile<8, W>(k, a + i * a_m, a_m, a_k, b, ldb, c + i * ldc, ldc);
    for (; i < m; ++i) small_gemm_tile<1, W>(k, a + i * a_m, a_m, a_k, b, ldb, c + i * ldc, ldc);
}

// c[m,n] += sum_k a(m,k) b[k,n], a(m,k) = a[m*a_m + k*a_k], rows of b and c dense with leading dimensions ldb, ldc.
// Columns go through in blocks of two cache lines, then one, then singly.
template <class T>
void small_gemm(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_m, int64_t a_k, const T* b,
                int64_t ldb, T* c, int64_t ldc) {
    constexpr int kLine = 64 / sizeof(T);
    int64_t j = 0;
    for (; j + 2 * kLine <= n; j += 2 * kLine)
        small_gemm_columns<2 * kLine>(m, k, a, a_m, a_k, b + j, ldb, c + j, ldc);
    for (; j + kLine <= n; j += kLine) small_gemm_columns<kLine>(m, k, a, a_m, a_k, b + j, ldb, c + j, ldc);
    for (; j < n; ++j) small_gemm_columns<1>(m, k, a, a_m, a_k, b + j, ldb, c + j, ldc);
}

}  // namespace sana::cpu
