#include "ops/linear_attention.h"

#include "ops/gradients.h"
#include "ops/kernels.h"
#include "ops/linear_attention_fp8.h"

namespace sana {

namespace {

// Checks the operands and makes room for the state.
LinearState state_for(const Tensor& q, const Tensor& k, const Tensor& v,
                      const LinearAttentionOptions& options) {
    DType dtype = same_dtype("linear_attention", {&q, &k, &v, &options.q_norm, &options.k_norm});
    Dims d = bind_op("linear_attention", {{q, "q[B,N,C]"},
                                          {k, "k[B,N,C]"},
                                          {v, "v[B,N,C]"},
                                          {options.q_norm, "q_norm[C]"},
                                          {options.k_norm, "k_norm[C]"},
                                          {options.rope.cos, "cos[N,P]"},
                                          {options.rope.sin, "sin[N,P]"}});
    check_rope("linear_attention", options.rope, q);
    int64_t heads = options.heads;
    check(heads > 0 && d['C'] == heads * 2 * d['P'], "linear_attention: ", heads, " heads with a rope of ",
          d['P'], " pairs do not fit ", q);
    int64_t width = d['C'] / heads;
    DType sums = dtype == DType::F64 ? DType::F64 : DType::F32;
    if (options.past != nullptr) {
        same_dtype("linear_attention state", {&options.past->kv, &options.past->k_sum});
        check_device("linear_attention", options.past->kv, q);
        Shape kv{d['B'], heads, width, width}, k_sum{d['B'], heads, width};
        check(options.past->kv.shape() == kv && options.past->k_sum.shape() == k_sum &&
                  options.past->kv.dtype() == sums,
              "linear_attention: state ", options.past->kv, " and ", options.past->k_sum, " for ", q);
    }
    return {empty({d['B'], heads, width, width}, sums, q.device()),
            empty({d['B'], heads, width}, sums, q.device())};
}

}  // namespace

Tensor linear_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                        const LinearAttentionOptions& options) {
    LinearState state = state_for(q, k, v, options);
    Tensor y = empty(q.shape(), q.dtype(), q.device());
    launch("linear_attention", &Kernels::linear_attention, q.device(),
           LinearAttentionArgs{q, k, v, options, state.kv, state.k_sum, y});
    if (options.total != nullptr) *options.total = state;
    record_linear_attention(q, k, v, options, y);
    return y;
}

Fp8 linear_attention_fp8(const Tensor& q, const Tensor& k, const Tensor& v,
                         const LinearAttentionOptions& options) {
    LinearState state = state_for(q, k, v, options);
    Fp8 y{empty(q.shape(), DType::F8E4M3, q.device()), empty({q.dim(0), q.dim(1)}, DType::F32, q.device())};
    launch("linear_attention_fp8", &Kernels::linear_attention_fp8, q.device(),
           LinearAttentionFp8Args{q, k, v, options, state.kv, state.k_sum, y});
    if (options.total != nullptr) *options.total = state;
    record_none("linear_attention_fp8", {&q, &k, &v});
    return y;
}

}  // namespace sana
