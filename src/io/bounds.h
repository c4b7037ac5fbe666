// Arithmetic on numbers that a file claims.
#pragma once

#include <cstdint>
#include <optional>

#include "core/dtype.h"
#include "core/shape.h"

namespace sana {

// Bytes of a dense tensor; nothing when the product overflows. Zeros are left out of the product, so that a shape whose
// other dimensions overflow is refused as well: later code multiplies in any order.
inline std::optional<int64_t> checked_bytes(DType dtype, const Shape& shape) {
    int64_t product = size_of(dtype);
    bool zero = false;
    for (int64_t dim : shape) {
        zero = zero || dim == 0;
        if (dim < 0 || (dim != 0 && __builtin_mul_overflow(product, dim, &product))) return std::nullopt;
    }
    return zero ? 0 : product;
}

// The index behind the last element of a view, in elements; nothing when it overflows. No dimension may be 0.
inline std::optional<int64_t> checked_extent(int64_t offset, const Shape& shape, const Shape& strides) {
    int64_t last = offset;
    for (int i = 0; i < shape.rank(); ++i) {
        int64_t step;
        if (__builtin_mul_overflow(shape[i] - 1, strides[i], &step) ||
            __builtin_add_overflow(last, step, &last)) {
            return std::nullopt;
        }
    }
    if (__builtin_add_overflow(last, 1, &last)) return std::nullopt;
    return last;
}

}  // namespace sana
