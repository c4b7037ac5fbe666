#include "ops/linear_attention.h"

#include "ops/gradients.h"
#include "ops/kernels.h"

namespace sana {

Tensor linear_attention(const Tensor& q, const Tensor& k, const Tensor& v,
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
    Tensor kv = empty({d['B'], heads, width, width}, sums, q.device());
    Tensor k_sum = empty({d['B'], heads, width}, sums, q.device());
    Tensor y = empty(q.shape(), dtype, q.device());
    launch("linear_attention", &Kernels::linear_attention, q.device(),
           LinearAttentionArgs{q, k, v, options, kv, k_sum, y});
    if (options.total != nullptr) *options.total = {kv, k_sum};
    record_linear_attention(q, k, v, options, y);
    return y;
}

}  // namespace sana
