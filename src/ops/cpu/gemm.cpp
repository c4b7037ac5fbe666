#include "ops/cpu/gemm.h"

#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "ops/cpu/microkernel.h"

#ifdef SANA_ONEDNN
#include "ops/cpu/dnnl.h"
#endif

namespace sana::cpu {

namespace {

// Tasks of 96 x 64 results; a block of B is packed to [k][n] so that the inner loop reads both operands in order.
template <class T>
void blocked_gemm(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c,
                  int64_t ldc, bool accumulate) {
    constexpr int64_t kRows = 96, kCols = 64, kDepth = 256;
    int64_t row_tiles = (m + kRows - 1) / kRows, col_tiles = (n + kCols - 1) / kCols;
    parallel_for(row_tiles * col_tiles, std::min(m, kRows) * std::min(n, kCols) * k, [&](int64_t task) {
        int64_t i = task / col_tiles * kRows, j = task % col_tiles * kCols;
        int64_t rows = std::min(kRows, m - i), cols = std::min(kCols, n - j);
        thread_local std::vector<T> panel;
        panel.resize(static_cast<size_t>(kDepth * kCols));
        if (!accumulate) {
            for (int64_t r = 0; r < rows; ++r) std::fill_n(c + (i + r) * ldc + j, cols, T(0));
        }
        for (int64_t p = 0; p < k; p += kDepth) {
            int64_t depth = std::min(kDepth, k - p);
            for (int64_t q = 0; q < cols; ++q) {
                const T* row = b + (j + q) * ldb + p;
                for (int64_t d = 0; d < depth; ++d) panel[static_cast<size_t>(d * kCols + q)] = row[d];
            }
            small_gemm<T>(rows, cols, depth, a + i * lda + p, lda, 1, panel.data(), kCols, c + i * ldc + j,
                          ldc);
        }
    });
}

}  // namespace

template <>
void gemm<double>(int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, const double* b, int64_t ldb,
                  double* c, int64_t ldc, bool accumulate) {
    blocked_gemm(m, n, k, a, lda, b, ldb, c, ldc, accumulate);
}

template <>
void gemm<float>(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
                 float* c, int64_t ldc, bool accumulate) {
    if (m == 0 || n == 0) return;
#ifdef SANA_ONEDNN
    dnnl::status status =
        dnnl::sgemm('N', 'T', m, n, k, 1.0f, a, lda, b, ldb, accumulate ? 1.0f : 0.0f, c, ldc);
    check(status == dnnl::status::success, "oneDNN could not multiply ", m, " x ", k, " by ", k, " x ", n);
#else
    blocked_gemm(m, n, k, a, lda, b, ldb, c, ldc, accumulate);
#endif
}

namespace {

// rows x cols of x as fp32, dense.
void widen(const bf16* x, int64_t rows, int64_t cols, int64_t stride, float* out) {
    parallel_for(rows, cols, [&](int64_t r) {
        for (int64_t i = 0; i < cols; ++i) out[r * cols + i] = x[r * stride + i];
    });
}

// For processors without products of bf16: widened operands in the fp32 product, a chunk of rows at a time.
void widened_gemm(int64_t m, int64_t n, int64_t k, const bf16* a, int64_t lda, const bf16* b, int64_t ldb,
                  float* c, int64_t ldc, bool accumulate) {
    constexpr int64_t kRows = 2048;
    Tensor wide_a = empty({std::min(m, kRows), k}, DType::F32), wide_b = empty({n, k}, DType::F32);
    widen(b, n, k, ldb, wide_b.data<float>());
    for (int64_t first = 0; first < m; first += kRows) {
        int64_t rows = std::min(kRows, m - first);
        widen(a + first * lda, rows, k, lda, wide_a.data<float>());
        gemm<float>(rows, n, k, wide_a.data<float>(), k, wide_b.data<float>(), k, c + first * ldc, ldc,
                    accumulate);
    }
}

}  // namespace

void gemm_bf16(int64_t m, int64_t n, int64_t k, const bf16* a, int64_t lda, const bf16* b, int64_t ldb,
               float* c, int64_t ldc, bool accumulate) {
    if (m == 0 || n == 0) return;
#ifdef SANA_ONEDNN
    if (!dnnl_has_bf16()) return widened_gemm(m, n, k, a, lda, b, ldb, c, ldc, accumulate);
    using dnnl::memory;
    memory::desc a_desc({m, k}, memory::data_type::bf16, {lda, 1});
    memory::desc b_desc({k, n}, memory::data_type::bf16, {1, ldb});
    memory::desc c_desc({m, n}, memory::data_type::f32, {ldc, 1});
    dnnl::primitive_attr attributes;
    if (accumulate) {
        dnnl::post_ops sum;
        sum.append_sum(1.0f);
        attributes.set_post_ops(sum);
    }
    run_primitive<dnnl::matmul>(a_desc, b_desc, c_desc, attributes, a, b, c);
#else
    widened_gemm(m, n, k, a, lda, b, ldb, c, ldc, accumulate);
#endif
}

}  // namespace sana::cpu
