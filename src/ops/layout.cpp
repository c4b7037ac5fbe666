#include "ops/layout.h"

#include "ops/gradients.h"
#include "ops/kernels.h"

namespace sana {

namespace {

Shape strides_of(const Tensor& x) {
    Shape strides = x.shape();
    int64_t stride = 1;
    for (int i = x.rank() - 1; i >= 0; --i) {
        strides[i] = stride;
        stride *= i == x.rank() - 1 ? x.row_stride() : x.dim(i);
    }
    return strides;
}

int positive_axis(const char* op, const Tensor& x, int axis) {
    int a = axis < 0 ? axis + x.rank() : axis;
    check(a >= 0 && a < x.rank(), op, ": axis ", axis, " of ", x);
    return a;
}

std::byte* element(const Tensor& x, int64_t offset) {
    return static_cast<std::byte*>(x.raw()) + offset * size_of(x.dtype());
}

}  // namespace

Tensor concat(const std::vector<Tensor>& parts, int axis) {
    check(!parts.empty(), "concat of nothing");
    const Tensor& first = parts[0];
    int a = positive_axis("concat", first, axis);
    Shape shape = first.shape();
    shape[a] = 0;
    for (const Tensor& part : parts) {
        check(part.rank() == first.rank() && part.dtype() == first.dtype() && part.device() == first.device(),
              "concat: ", part, " and ", first);
        for (int i = 0; i < first.rank(); ++i) {
            check(i == a || part.dim(i) == first.dim(i), "concat on axis ", axis, ": ", part, " and ", first);
        }
        shape[a] += part.dim(a);
    }
    Tensor y = empty(shape, first.dtype(), first.device());
    Shape to = strides_of(y);
    int64_t start = 0;
    for (const Tensor& part : parts) {
        launch("concat", &Kernels::strided_copy, y.device(),
               StridedCopyArgs{part.shape(), part.raw(), strides_of(part), element(y, start * to[a]), to,
                               size_of(y.dtype()), y.device()});
        start += part.dim(a);
    }
    record_concat(parts, a, y);
    return y;
}

Tensor slice(const Tensor& x, int axis, int64_t start, int64_t length) {
    int a = positive_axis("slice", x, axis);
    check(start >= 0 && length >= 0 && length <= x.dim(a) - start, "slice of ", length, " from ", start,
          " on axis ", axis, " of ", x);
    if (start == 0 && length == x.dim(a)) return x;
    if (a == x.rank() - 1) return x.cols_slice(start, length);
    int64_t outer = 1;
    for (int i = 0; i < a; ++i) outer *= x.dim(i);
    Shape shape = x.shape();
    shape[a] = length;
    if (outer == 1 && x.dense()) {  // everything before the axis is 1: contiguous
        Shape flat;
        for (int i = a; i < x.rank(); ++i) flat.push_back(x.dim(i));
        return x.reshape(flat).outer_slice(start, length).reshape(shape);
    }
    Tensor y = empty(shape, x.dtype(), x.device());
    Shape from = strides_of(x);
    launch("slice", &Kernels::strided_copy, x.device(),
           StridedCopyArgs{shape, element(x, start * from[a]), from, y.raw(), strides_of(y),
                           size_of(x.dtype()), x.device()});
    record_slice(x, a, start, length, y);
    return y;
}

Tensor permute(const Tensor& x, const std::vector<int>& axes) {
    check(static_cast<int>(axes.size()) == x.rank(), "permute of ", x, " with ", axes.size(), " axes");
    Shape from = strides_of(x), shape = x.shape(), strides = x.shape();
    std::vector<bool> seen(axes.size(), false);
    for (int i = 0; i < x.rank(); ++i) {
        int a = positive_axis("permute", x, axes[static_cast<size_t>(i)]);
        check(!seen[static_cast<size_t>(a)], "permute of ", x, ": axis ", a, " twice");
        seen[static_cast<size_t>(a)] = true;
        shape[i] = x.dim(a);
        strides[i] = from[a];
    }
    Tensor y = empty(shape, x.dtype(), x.device());
    launch("permute", &Kernels::strided_copy, x.device(),
           StridedCopyArgs{shape, x.raw(), strides, y.raw(), strides_of(y), size_of(x.dtype()), x.device()});
    record_permute(x, axes, y);
    return y;
}

Tensor channels_last(const Tensor& x) { return permute(x, {0, 2, 3, 4, 1}); }
Tensor channels_first(const Tensor& x) { return permute(x, {0, 4, 1, 2, 3}); }

}  // namespace sana
