// concat, slice and permute: equality in every dtype, and elements of 1, 2, 4 and 8 bytes.
#include <numeric>

#include "bench/case.h"
#include "bench/values.h"
#include "ops/layout.h"

namespace sana::cases {

namespace {

// A float tensor that follows the dtype under test, or integers of a dtype of its own.
Input made(Generator& g, const Shape& shape, DType dtype) {
    return strided(dtype == DType::F64 ? g.normal(shape) : g.integers(shape, dtype));
}

std::string of(DType dtype) { return dtype == DType::F64 ? "" : join(" ", dtype); }

Tensor result(const Values& y, const Tensor& like) { return y.tensor().to(like.dtype()); }

// Index of an element, one number a dimension, first to last.
std::vector<int64_t> index_of(int64_t flat, const Shape& shape) {
    std::vector<int64_t> index(static_cast<size_t>(shape.rank()));
    for (int i = shape.rank() - 1; i >= 0; --i) {
        index[static_cast<size_t>(i)] = flat % shape[i];
        flat /= shape[i];
    }
    return index;
}
int64_t flat_of(const std::vector<int64_t>& index, const Shape& shape) {
    int64_t flat = 0;
    for (int i = 0; i < shape.rank(); ++i) flat = flat * shape[i] + index[static_cast<size_t>(i)];
    return flat;
}

Instance concat_instance(Shape shape, int axis, const std::vector<int64_t>& sizes, DType dtype = DType::F64) {
    std::string name = join("x", shape, " axis ", axis, " of");
    for (int64_t size : sizes) name += join(" ", size);
    return {
        .name = name + of(dtype),
        .inputs =
            [=](Generator& g) {
                Inputs in;
                Shape part = shape;
                for (int64_t size : sizes) {
                    part[axis] = size;
                    in.push_back(made(g, part, dtype));
                }
                return in;
            },
        .run = [=](const Tensors& in) { return Tensors{concat(in, axis)}; },
        .reference =
            [=](const Tensors& in) {
                Shape whole = shape;
                whole[axis] = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
                Values y(whole);
                size_t a = static_cast<size_t>(axis < 0 ? axis + shape.rank() : axis);
                int64_t start = 0;
                for (const Tensor& part : in) {
                    Values x(part);
                    for (int64_t i = 0; i < x.size(); ++i) {
                        std::vector<int64_t> index = index_of(i, part.shape());
                        index[a] += start;
                        y.flat(flat_of(index, whole)) = x.flat(i);
                    }
                    start += part.dim(axis);
                }
                return Tensors{result(y, in[0])};
            },
    };
}

Instance slice_instance(const Shape& shape, int axis, int64_t start, int64_t length,
                        DType dtype = DType::F64) {
    return {
        .name = join("x", shape, " axis ", axis, " from ", start, " length ", length, of(dtype)),
        .inputs = [=](Generator& g) { return Inputs{made(g, shape, dtype)}; },
        .run = [=](const Tensors& in) { return Tensors{slice(in[0], axis, start, length)}; },
        .reference =
            [=](const Tensors& in) {
                Shape part = shape;
                part[axis] = length;
                Values x(in[0]), y(part);
                size_t a = static_cast<size_t>(axis < 0 ? axis + shape.rank() : axis);
                for (int64_t i = 0; i < y.size(); ++i) {
                    std::vector<int64_t> index = index_of(i, part);
                    index[a] += start;
                    y.flat(i) = x.flat(flat_of(index, shape));
                }
                return Tensors{result(y, in[0])};
            },
        .bytes = [](const Tensors&, const Tensors& y) { return 2.0 * static_cast<double>(y[0].bytes()); },
    };
}

Instance permute_instance(const Shape& shape, const std::vector<int>& axes, DType dtype = DType::F64) {
    std::string name = join("x", shape, " to");
    for (int axis : axes) name += join(" ", axis);
    return {
        .name = name + of(dtype),
        .inputs = [=](Generator& g) { return Inputs{made(g, shape, dtype)}; },
        .run = [=](const Tensors& in) { return Tensors{permute(in[0], axes)}; },
        .reference =
            [=](const Tensors& in) {
                Shape turned;
                for (int axis : axes) turned.push_back(shape[axis]);
                Values x(in[0]), y(turned);
                for (int64_t i = 0; i < y.size(); ++i) {
                    std::vector<int64_t> to = index_of(i, turned), from(to.size());
                    for (size_t d = 0; d < to.size(); ++d) {
                        from[static_cast<size_t>(axes[d] < 0 ? axes[d] + shape.rank() : axes[d])] = to[d];
                    }
                    y.flat(i) = x.flat(flat_of(from, shape));
                }
                return Tensors{result(y, in[0])};
            },
    };
}

}  // namespace

std::vector<Case> layout_cases() {
    const Bounds equal{0, 0, 0};
    const std::vector<DType> widths{DType::U8, DType::I16, DType::I32, DType::I64};
    Case join_parts{.name = "concat", .bounds = equal}, part{.name = "slice", .bounds = equal},
        turn{.name = "permute", .bounds = equal};
    for (int axis : {0, 1, 2, 3, -1, -4}) {
        join_parts.tests.push_back(concat_instance({2, 3, 4, 5}, axis, {3, 1, 2}));
        part.tests.push_back(slice_instance({4, 3, 5, 6}, axis, 1, 2));
        part.tests.push_back(slice_instance({4, 3, 5, 6}, axis, 0, 1));
    }
    join_parts.tests.push_back(concat_instance({2, 3}, 1, {2241}));
    join_parts.tests.push_back(concat_instance({2, 3}, 0, {1, 0, 2}));
    part.tests.push_back(slice_instance({1, 1, 5, 6}, 2, 2, 3));  // a view
    part.tests.push_back(slice_instance({4, 3, 5, 6}, 1, 0, 3));  // all of it
    part.tests.push_back(slice_instance({4, 3, 5, 6}, 1, 3, 0));  // nothing
    part.tests.push_back(slice_instance({2241}, 0, 2240, 1));
    turn.tests = {permute_instance({7}, {0}),
                  permute_instance({5, 7}, {0, 1}),
                  permute_instance({5, 2241}, {1, 0}),
                  permute_instance({2, 3, 4, 5, 6}, {0, 2, 3, 4, 1}),
                  permute_instance({2, 3, 4, 5, 6}, {0, 4, 1, 2, 3}),
                  permute_instance({2, 3, 1, 5}, {-1, 0, -2, 1}),
                  permute_instance({2, 3, 2, 1, 3, 2, 2, 4}, {7, 2, 0, 5, 1, 4, 3, 6}),
                  permute_instance({1, 2, 2, 3, 2, 3, 2, 4}, {0, 1, 3, 5, 2, 4, 6, 7})};  // an unpatchify
    for (DType dtype : widths) {
        join_parts.tests.push_back(concat_instance({2, 3, 4}, 1, {3, 4}, dtype));
        part.tests.push_back(slice_instance({2, 3, 4}, 1, 1, 2, dtype));
        turn.tests.push_back(permute_instance({2, 3, 4, 5}, {0, 2, 3, 1}, dtype));
        turn.tests.push_back(permute_instance({2, 3, 4, 5}, {3, 1, 0, 2}, dtype));
    }
    join_parts.bench_cpu = {concat_instance({1, 1560, 2240}, 2, {2240, 2240})};
    join_parts.bench_gpu = {concat_instance({2, 32760, 2240}, 2, {2240, 2240})};
    part.bench_cpu = {slice_instance({2, 3, 1560, 2240}, 1, 1, 1)};
    part.bench_gpu = {slice_instance({2, 21, 1560, 2240}, 1, 18, 3)};
    turn.bench_cpu = {permute_instance({1, 96, 1, 240, 416}, {0, 2, 3, 4, 1}),
                      permute_instance({1, 1, 240, 416, 96}, {0, 4, 1, 2, 3})};
    turn.bench_gpu = {permute_instance({1, 96, 4, 480, 832}, {0, 2, 3, 4, 1}),
                      permute_instance({1, 4, 480, 832, 96}, {0, 4, 1, 2, 3})};
    return {join_parts, part, turn};
}

}  // namespace sana::cases
