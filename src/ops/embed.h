// Embeddings of ids and of timesteps.
#pragma once

#include "core/tensor.h"

namespace sana {

// y[b,l,:] = table[ids[b,l],:] * scale, rounded to the table's dtype.   ids [B,L] int32, table [V,C] -> [B,L,C]
Tensor embedding(const Tensor& ids, const Tensor& table, float scale);

struct EmbeddingArgs {
    const Tensor &ids, &table;
    float scale;
    Tensor& y;
};

// Sinusoid of a timestep in 0..1000, cosines first: y = [cos(t g_j), sin(t g_j)], g_j = 10000^(-j/(D/2)).
// t [M] fp32 (or fp64) -> [M,D] of the same dtype.
Tensor timestep_embedding(const Tensor& t, int64_t dim);

struct TimestepEmbeddingArgs {
    const Tensor& t;
    Tensor& y;
};

}  // namespace sana
