// Loops over threads. Work is split into equal static parts, so results do not depend on timing.
#pragma once

#include <omp.h>

#include <cstdint>

namespace sana {

inline void set_threads(int n) { omp_set_num_threads(n); }
inline int threads() { return omp_get_max_threads(); }

// f(i) for i in [0, n), on all threads when n * cost (rough operations an item) is worth it.
template <class F>
void parallel_for(int64_t n, int64_t cost, F&& f) {
    bool worth = n > 1 && n * cost > 20000;
#pragma omp parallel for schedule(static) if (worth)
    for (int64_t i = 0; i < n; ++i) f(i);
}

}  // namespace sana
