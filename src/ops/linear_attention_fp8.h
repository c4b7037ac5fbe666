// Linear attention for a product of E4M3 behind it.
#pragma once

#include "ops/fp8.h"
#include "ops/linear_attention.h"

namespace sana {

// quantise(linear_attention(q, k, v, options)), of the result in the dtype of q.
Fp8 linear_attention_fp8(const Tensor& q, const Tensor& k, const Tensor& v,
                         const LinearAttentionOptions& options);

struct LinearAttentionFp8Args {
    const Tensor &q, &k, &v;
    const LinearAttentionOptions& options;
    Tensor &kv, &k_sum;  // as in LinearAttentionArgs
    Fp8& y;
};

namespace cpu {
void linear_attention_fp8(const LinearAttentionFp8Args&);
}
namespace cuda {
void linear_attention_fp8(const LinearAttentionFp8Args&);
}

}  // namespace sana
