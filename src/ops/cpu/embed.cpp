#include "ops/embed.h"

#include <cmath>

#include "core/parallel.h"
#include "ops/cpu/cpu.h"

namespace sana::cpu {

void embedding(const EmbeddingArgs& args) {
    const int32_t* ids = args.ids.data<int32_t>();
    int64_t n = args.ids.numel(), vocabulary = args.table.dim(0), cols = args.table.cols();
    for (int64_t i = 0; i < n; ++i) {
        check_input(ids[i] >= 0 && ids[i] < vocabulary, "embedding: token id ", ids[i], " at position ", i,
                    " is outside the vocabulary of ", vocabulary,
                    "; tokenizer and text encoder do not belong together");
    }
    dispatch_float(args.table.dtype(), [&]<class T>() {
        using C = compute_t<T>;
        // The reference multiplies by the factor rounded to the storage type.
        C scale = static_cast<C>(T(args.scale));
        parallel_for(n, cols, [&](int64_t i) {
            const T* from = args.table.data<T>() + ids[i] * cols;
            T* to = args.y.data<T>() + i * cols;
            for (int64_t c = 0; c < cols; ++c) to[c] = T(static_cast<C>(from[c]) * scale);
        });
    });
}

void timestep_embedding(const TimestepEmbeddingArgs& args) {
    dispatch_float(args.t.dtype(), [&]<class T>() {
        using C = compute_t<T>;
        int64_t half = args.y.cols() / 2;
        for (int64_t i = 0; i < args.t.numel(); ++i) {
            C t = static_cast<C>(args.t.data<T>()[i]);
            T* y = args.y.data<T>() + i * 2 * half;
            for (int64_t j = 0; j < half; ++j) {
                // Rounded step by step as the reference does in fp32: at t near 1000 that is visible in the 5th digit.
                C exponent = static_cast<C>(-std::log(10000.0)) * static_cast<C>(j) / static_cast<C>(half);
                C angle = t * static_cast<C>(std::exp(exponent));
                y[j] = T(std::cos(angle));
                y[half + j] = T(std::sin(angle));
            }
        }
    });
}

}  // namespace sana::cpu
