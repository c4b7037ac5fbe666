// Keys are packed transposed and values dense once a (sample, key head), those that the mask keeps; then every tile of 32
// queries makes its scores over them, their softmax, and the weighted sum of values.
#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/parallel.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/microkernel.h"
#include "ops/cpu/simd.h"

namespace sana::cpu {

namespace {

constexpr int64_t kTile = 32;

// The keys of a sample that its mask keeps, in order. Attention counts in slots of this list: keys that are hidden are never
// read, so what they hold does not matter, and a short prompt costs what it is long.
struct KeptKeys {
    std::vector<int32_t> positions;

    KeptKeys(const Tensor& mask, int64_t sample, int64_t keys) {
        const int32_t* kept = mask.defined() ? mask.data<int32_t>() + sample * mask.row_stride() : nullptr;
        for (int64_t j = 0; j < keys; ++j) {
            if (kept == nullptr || kept[j] != 0) positions.push_back(static_cast<int32_t>(j));
        }
    }

    int64_t count() const { return static_cast<int64_t>(positions.size()); }
    // Slots of keys before a position.
    int64_t before(int64_t position) const {
        return std::lower_bound(positions.begin(), positions.end(), position) - positions.begin();
    }
};

// Turns scores of one query into weights; it sees the slots [first, last) of `slots` in the row. Returns 1 / sum, or 0 when it
// sees none.
template <class C>
C softmax_row(const AttentionOptions& o, int64_t first, int64_t last, int64_t slots, C* row) {
    C lowest = -std::numeric_limits<C>::infinity(), best = lowest;
    C scale = static_cast<C>(o.scale);
    if (o.soft_cap > 0) {
        C cap = static_cast<C>(o.soft_cap);
        for (int64_t j = first; j < last; ++j) row[j] = cap * tanh_(row[j] * scale / cap);
    } else {
#pragma omp simd
        for (int64_t j = first; j < last; ++j) row[j] *= scale;
    }
#pragma omp simd reduction(max : best)
    for (int64_t j = first; j < last; ++j) best = row[j] > best ? row[j] : best;
    // A row of NaN has no largest score either, but must stay NaN.
    if (!(best > lowest) &&
        std::none_of(row + first, row + std::max(first, last), [](C s) { return s != s; })) {
        std::fill(row, row + slots, C(0));
        return 0;
    }
    C sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = first; j < last; ++j) {
        row[j] = exp_(row[j] - best);
        sum += row[j];
    }
    std::fill(row, row + std::min(first, slots), C(0));
    std::fill(row + std::max(last, first), row + slots, C(0));
    return 1 / sum;
}

template <class T>
void run(const AttentionArgs& args) {
    using C = compute_t<T>;
    const AttentionOptions& o = args.options;
    int64_t batch = args.q.dim(0), queries = args.q.dim(1), keys = args.k.dim(1);
    int64_t width = args.q.dim(2) / o.heads, share = o.heads / o.kv_heads;
    DType dtype = dtype_of<C>();
    std::vector<KeptKeys> kept;
    int64_t most = 0;
    for (int64_t b = 0; b < batch; ++b) {
        kept.emplace_back(args.mask, b, keys);
        most = std::max(most, kept.back().count());
    }
    auto padded = [](int64_t n) { return (n + 15) / 16 * 16; };  // whole vectors, zeros behind the last key
    int64_t pitch = padded(most);
    Tensor packed_keys = empty({batch * o.kv_heads, width, pitch}, dtype);
    Tensor packed_values = empty({batch * o.kv_heads, most, width}, dtype);
    parallel_for(batch * o.kv_heads, most * width, [&](int64_t task) {
        int64_t b = task / o.kv_heads, column = task % o.kv_heads * width;
        int64_t count = kept[static_cast<size_t>(b)].count();
        C* to_k = packed_keys.data<C>() + task * width * pitch;
        C* to_v = packed_values.data<C>() + task * width * most;
        for (int64_t slot = 0; slot < count; ++slot) {
            int64_t row = b * keys + kept[static_cast<size_t>(b)].positions[static_cast<size_t>(slot)];
            const T* k = args.k.data<T>() + row * args.k.row_stride() + column;
            const T* v = args.v.data<T>() + row * args.v.row_stride() + column;
            for (int64_t d = 0; d < width; ++d) to_k[d * pitch + slot] = static_cast<C>(k[d]);
            to_compute(v, to_v + slot * width, width);
        }
        for (int64_t d = 0; d < width; ++d) std::fill(to_k + d * pitch + count, to_k + (d + 1) * pitch, C(0));
    });
    int64_t tiles = (queries + kTile - 1) / kTile;
    parallel_for(batch * o.heads * tiles, kTile * most * width, [&](int64_t task) {
        int64_t b = task / tiles / o.heads, a = task / tiles % o.heads, start = task % tiles * kTile;
        int64_t n = std::min(kTile, queries - start);
        const KeptKeys& slots = kept[static_cast<size_t>(b)];
        // No query of the tile sees further.
        int64_t reach = o.causal ? slots.before(start + n) : slots.count();
        int64_t wide = padded(reach);
        const C* k = packed_keys.data<C>() + (b * o.kv_heads + a / share) * width * pitch;
        const C* v = packed_values.data<C>() + (b * o.kv_heads + a / share) * width * most;
        thread_local std::vector<C> q, scores, out;
        q.resize(static_cast<size_t>(n * width));
        scores.assign(static_cast<size_t>(n * wide), C(0));
        out.assign(static_cast<size_t>(n * width), C(0));
        for (int64_t i = 0; i < n; ++i) {
            to_compute(args.q.data<T>() + (b * queries + start + i) * args.q.row_stride() + a * width,
                       q.data() + i * width, width);
        }
        small_gemm<C>(n, wide, width, q.data(), width, 1, k, pitch, scores.data(), wide);
        C inverse[kTile];
        for (int64_t i = 0; i < n; ++i) {
            int64_t query = start + i, last = o.causal ? slots.before(query + 1) : reach,
                    first = o.window > 0 ? slots.before(query - o.window + 1) : 0;
            inverse[i] = softmax_row(o, first, last, reach, scores.data() + i * wide);
        }
        small_gemm<C>(n, width, reach, scores.data(), wide, 1, v, width, out.data(), width);
        for (int64_t i = 0; i < n; ++i) {
            C* row = out.data() + i * width;
#pragma omp simd
            for (int64_t d = 0; d < width; ++d) row[d] *= inverse[i];
            from_compute(row, args.y.data<T>() + (b * queries + start + i) * args.y.row_stride() + a * width,
                         width);
        }
    });
}

}  // namespace

void attention(const AttentionArgs& args) {
    dispatch_float(args.q.dtype(), [&]<class T>() { run<T>(args); });
}

}  // namespace sana::cpu
