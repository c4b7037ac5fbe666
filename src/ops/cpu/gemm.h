// The matrix product under the CPU's linear and temporal_conv.
#pragma once

#include "core/tensor.h"

namespace sana::cpu {

// C[M,N] (+)= A[M,K] B[N,K]^T, row strides lda, ldb, ldc in elements; accumulate adds to C.
// T float or double. float goes to oneDNN where the build has it; otherwise blocked loops.
template <class T>
void gemm(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c,
          int64_t ldc, bool accumulate);

// C[M,N] fp32 (+)= A[M,K] B[N,K]^T with bf16 operands and fp32 sums.
void gemm_bf16(int64_t m, int64_t n, int64_t k, const bf16* a, int64_t lda, const bf16* b, int64_t ldb,
               float* c, int64_t ldc, bool accumulate);

}  // namespace sana::cpu
