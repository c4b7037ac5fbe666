// Training steps at released sizes on random weights and data, as subjects of a benchmark.
#pragma once

#include "apps/bench_models.h"

namespace sana::apps {

// One optimiser step of the transformer on latents and text states: forward, backward with recomputation of every block,
// AdamW on fp32 masters.
Subject train_step_subject(const ModelBench& bench);

}  // namespace sana::apps
