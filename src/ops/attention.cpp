#include "ops/attention.h"

#include "ops/gradients.h"
#include "ops/kernels.h"

namespace sana {

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
                 const AttentionOptions& options) {
    DType dtype = same_dtype("attention", {&q, &k, &v});
    Dims d = bind_op("attention",
                     {{q, "q[B,N,C]"}, {k, "k[B,L,E]"}, {v, "v[B,L,E]"}, {mask, "mask[B,L]", kMayBeNone}});
    check(!mask.defined() || mask.dtype() == DType::I32, "attention: mask ", mask, " must be int32");
    check_device("attention", mask, q);
    int64_t heads = options.heads, kv_heads = options.kv_heads;
    check(heads > 0 && kv_heads > 0 && heads % kv_heads == 0 && d['C'] % heads == 0 &&
              d['E'] % kv_heads == 0 && d['C'] / heads == d['E'] / kv_heads,
          "attention: ", heads, " query and ", kv_heads, " key heads do not fit ", q, " and ", k);
    Tensor y = empty(q.shape(), dtype, q.device());
    launch("attention", &Kernels::attention, q.device(), AttentionArgs{q, k, v, mask, options, y});
    record_attention(q, k, v, mask, options, y);
    return y;
}

}  // namespace sana
