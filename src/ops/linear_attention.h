// Linear attention with ReLU features, as SANA-Video has it (arXiv 2509.24695; diffusers SanaVideoTransformer3DModel).
#pragma once

#include "core/tensor.h"
#include "ops/rope.h"

namespace sana {

// The constant-size state of block-causal attention: sums over all tokens of earlier blocks.
struct LinearState {
    Tensor kv;     // [B,A,D,D] fp32 (fp64 for fp64): sum of v (row) times rotated k (column)
    Tensor k_sum;  // [B,A,D]: sum of un-rotated k
};

struct LinearAttentionOptions {
    int64_t heads = 1;
    Tensor q_norm, k_norm;  // [C] weights of the RMS norm over all heads
    float norm_eps = 1e-5f;
    float eps = 1e-15f;                 // added to the normaliser
    Rope rope;                          // [N, D/2]
    const LinearState* past = nullptr;  // added to the sums over this block
    LinearState* total = nullptr;       // receives past + this block
};

// q' = relu(rms_norm(q)), k' = relu(rms_norm(k)) over all C channels; q~, k~ = rotated q', k' (adjacent pairs).
//   S = sum_n v_n k~_n^T,  s = sum_n k'_n,  o_n = (S q~_n) / (q'_n . s + eps)      a head; sums in fp32
// q, k, v [B,N,C] -> [B,N,C].
Tensor linear_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                        const LinearAttentionOptions& options);

struct LinearAttentionArgs {
    const Tensor &q, &k, &v;
    const LinearAttentionOptions& options;
    Tensor &kv, &k_sum;  // the state, filled by the kernel with past + this block
    Tensor& y;
};

}  // namespace sana
