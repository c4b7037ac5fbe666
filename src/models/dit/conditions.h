// What every block of a forward pass shares.
#pragma once

#include "models/dit/dit.h"
#include "ops/pointwise.h"

namespace sana {

struct DiTConditions {
    Tensor time;       // [B,G,6C]
    Tensor text_mask;  // [B,L] or none
    Rope rope;
    Grid grid;
    int64_t wide_frames = 0;  // see DiTExecution

    // Those of the samples start .. start + count.
    DiTConditions samples(int64_t start, int64_t count) const {
        DiTConditions part = *this;
        part.time = time.outer_slice(start, count);
        if (text_mask.defined()) part.text_mask = text_mask.outer_slice(start, count);
        return part;
    }

    // The six rows of time + table.   table [6,C]
    Modulation modulation(const Tensor& table) const {
        Tensor rows = affine(time, {}, table.reshape({table.numel()}));
        int64_t width = table.cols();
        auto row = [&](int64_t i) { return rows.cols_slice(i * width, width); };
        return {row(0), row(1), row(2), row(3), row(4), row(5)};
    }
};

}  // namespace sana
