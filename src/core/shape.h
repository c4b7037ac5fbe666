// Shapes: row-major, last dimension fastest. Dims binds the dimension letters of an op to numbers and checks them.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "core/check.h"

namespace sana {

class Shape {
public:
    static constexpr int kMaxRank = 8;

    Shape() = default;
    Shape(std::initializer_list<int64_t> dims);
    explicit Shape(const std::vector<int64_t>& dims);

    int rank() const { return rank_; }
    int64_t numel() const;
    int64_t operator[](int axis) const { return dims_[index(axis)]; }  // negative counts from the end
    int64_t& operator[](int axis) { return dims_[index(axis)]; }
    const int64_t* begin() const { return dims_.data(); }
    const int64_t* end() const { return dims_.data() + rank_; }
    void push_back(int64_t dim);
    bool operator==(const Shape& other) const;

private:
    size_t index(int axis) const;

    std::array<int64_t, kMaxRank> dims_{};
    int rank_ = 0;
};

void print(std::string& out, const Shape& shape);  // [2, 3, 4]

// Values of dimension letters, filled by bind() in core/tensor.h.
class Dims {
public:
    int64_t operator[](char letter) const;
    bool has(char letter) const { return values_.count(letter) != 0; }
    void set(char letter, int64_t value) { values_[letter] = value; }

private:
    friend void print(std::string& out, const Dims& dims);
    std::map<char, int64_t> values_;
};

void print(std::string& out, const Dims& dims);  // B=2 N=48 C=96

}  // namespace sana
