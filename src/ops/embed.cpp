#include "ops/embed.h"

#include "ops/gradients.h"
#include "ops/kernels.h"

namespace sana {

Tensor embedding(const Tensor& ids, const Tensor& table, float scale) {
    DType dtype = same_dtype("embedding", {&table});
    Dims d = bind_op("embedding", {{ids, "ids[B,L]"}, {table, "table[V,C]"}});
    check(ids.dtype() == DType::I32 && ids.dense() && table.dense(), "embedding: ids ", ids,
          " must be int32");
    check_device("embedding", ids, table);
    Tensor y = empty({d['B'], d['L'], d['C']}, dtype, table.device());
    launch("embedding", &Kernels::embedding, table.device(), EmbeddingArgs{ids, table, scale, y});
    record_embedding(ids, table, scale, y);
    return y;
}

Tensor timestep_embedding(const Tensor& t, int64_t dim) {
    check(t.defined() && t.rank() == 1 && (t.dtype() == DType::F32 || t.dtype() == DType::F64),
          "timestep_embedding: ", t, " must be a vector of fp32 or fp64");
    check(dim > 0 && dim % 2 == 0, "timestep_embedding: width ", dim, " must be even");
    Tensor y = empty({t.dim(0), dim}, t.dtype(), t.device());
    launch("timestep_embedding", &Kernels::timestep_embedding, t.device(), TimestepEmbeddingArgs{t, y});
    return y;
}

}  // namespace sana
