#include "core/shape.h"

#include <algorithm>

namespace sana {

Shape::Shape(std::initializer_list<int64_t> dims) {
    for (int64_t dim : dims) push_back(dim);
}

Shape::Shape(const std::vector<int64_t>& dims) {
    for (int64_t dim : dims) push_back(dim);
}

int64_t Shape::numel() const {
    int64_t n = 1;
    for (int64_t dim : *this) n *= dim;
    return n;
}

void Shape::push_back(int64_t dim) {
    check(rank_ < kMaxRank, "a shape has at most ", int64_t{kMaxRank}, " dimensions");
    dims_[static_cast<size_t>(rank_++)] = dim;
}

bool Shape::operator==(const Shape& other) const {
    return rank_ == other.rank_ && std::equal(begin(), end(), other.begin());
}

size_t Shape::index(int axis) const {
    int i = axis < 0 ? axis + rank_ : axis;
    check(i >= 0 && i < rank_, "axis ", int64_t{axis}, " of a shape with ", int64_t{rank_}, " dimensions");
    return static_cast<size_t>(i);
}

void print(std::string& out, const Shape& shape) {
    out += '[';
    for (int i = 0; i < shape.rank(); ++i) {
        if (i > 0) out += ", ";
        out += std::to_string(shape[i]);
    }
    out += ']';
}

int64_t Dims::operator[](char letter) const {
    auto it = values_.find(letter);
    check(it != values_.end(), "dimension letter ", letter, " is not bound");
    return it->second;
}

void print(std::string& out, const Dims& dims) {
    bool first = true;
    for (auto [letter, value] : dims.values_) {
        if (!first) out += ' ';
        first = false;
        out += letter;
        out += '=';
        out += std::to_string(value);
    }
}

}  // namespace sana
