// Softmax attention.
#pragma once

#include "core/tensor.h"

namespace sana {

struct AttentionOptions {
    int64_t heads = 1;     // A
    int64_t kv_heads = 1;  // E; query head a reads key head a / (A/E)
    float scale = 1;
    float soft_cap = 0;   // c > 0: scores become c * tanh(score / c)
    bool causal = false;  // key j is seen by query i when j <= i
    int64_t window = 0;   // w > 0: and when i - j < w
};

// o_i = sum_j softmax_j(cap(scale * q_i . k_j)) v_j over the keys that are allowed; scores and softmax in fp32.
// q [B,N,A*D], k and v [B,L,E*D]; mask [B,L] int32, nonzero = keep, or none. A query that no key is allowed to gives 0.
// A skipped key equals the additive -10000 of the reference: exp underflows to 0. What it and its value hold is not read.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
                 const AttentionOptions& options);

struct AttentionArgs {
    const Tensor &q, &k, &v, &mask;
    const AttentionOptions& options;
    Tensor& y;
};

}  // namespace sana
