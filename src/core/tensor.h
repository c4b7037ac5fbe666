// Tensor: a value. Shared storage + offset, dtype, shape. Copying shares the storage.
// Rows (the last dimension) are dense; a slice of the last dimension keeps the stride between rows, nothing else is
// strided. Layout everywhere: row-major, last letter fastest, channels last (tokens [B,N,C], video [B,T,H,W,C]).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/dtype.h"
#include "core/memory.h"
#include "core/shape.h"

namespace sana {

class Tensor {
public:
    Tensor() = default;  // undefined: stands for "none" where an argument is optional
    Tensor(StoragePtr storage, int64_t byte_offset, DType dtype, const Shape& shape);

    bool defined() const { return storage_ != nullptr; }
    DType dtype() const { return dtype_; }
    Device device() const { return storage_ ? storage_->device() : kCpu; }
    const Shape& shape() const { return shape_; }
    int rank() const { return shape_.rank(); }
    int64_t dim(int axis) const { return shape_[axis]; }  // negative counts from the end
    int64_t numel() const { return shape_.numel(); }
    int64_t cols() const { return rank() == 0 ? 1 : shape_[-1]; }        // the last dimension
    int64_t rows() const { return cols() == 0 ? 0 : numel() / cols(); }  // the product of the others
    int64_t row_stride() const { return row_stride_; }                   // elements between rows
    int64_t bytes() const { return numel() * size_of(dtype_); }
    bool dense() const { return row_stride_ == cols() || rows() <= 1; }

    // Typed pointer to the first element; throws when T is not the dtype.
    template <class T>
    T* data() const {
        check(dtype_of<T>() == dtype_, "tensor ", *this, " read as ", dtype_of<T>());
        return static_cast<T*>(raw());
    }
    void* raw() const { return storage_ == nullptr ? nullptr : storage_->data() + offset_; }

    // Whether this is the only reference to its storage (then an op may write its result into it).
    bool unique() const { return storage_.use_count() == 1; }
    const StoragePtr& storage() const { return storage_; }
    int64_t byte_offset() const { return offset_; }

    // Views: no copy.
    Tensor reshape(const Shape& shape) const;                 // dense only; one dimension may be -1
    Tensor cols_slice(int64_t start, int64_t length) const;   // part of the last dimension
    Tensor outer_slice(int64_t start, int64_t length) const;  // part of the first dimension; dense only
    Tensor select(int64_t index) const;                       // x[index, ...], rank - 1; dense only

    // The same shape and rows on another storage: the place of this view in a buffer laid out like its storage.
    Tensor rebased(StoragePtr storage, int64_t byte_offset) const;

    // Copies. to() returns *this when nothing changes.
    Tensor to(DType dtype) const;
    Tensor to(Device device) const;
    Tensor contiguous() const;  // *this when dense
    Tensor clone() const;

    // Name for messages (the checkpoint key); set at load.
    const std::string& name() const { return name_; }
    Tensor named(std::string name) const;

private:
    StoragePtr storage_;
    int64_t offset_ = 0;  // bytes
    int64_t row_stride_ = 0;
    Shape shape_;
    DType dtype_ = DType::F32;
    std::string name_;
};

void print(std::string& out, const Tensor& tensor);  // name = bf16[2, 32760, 2240]

using TensorMap = std::map<std::string, Tensor>;

// New tensors.
Tensor empty(const Shape& shape, DType dtype, Device device = kCpu);  // uninitialised
Tensor zeros(const Shape& shape, DType dtype, Device device = kCpu);
Tensor full(const Shape& shape, double value, DType dtype, Device device = kCpu);
Tensor empty_like(const Tensor& x);
template <class T>
Tensor from_vector(const std::vector<T>& values,
                   const Shape& shape);  // float, double, int64_t, int32_t, uint8_t
template <class T>
std::vector<T> to_vector(const Tensor& x);  // converts from any dtype; T float, double, int64_t

// Elements of x, in order, written to y of the same shape, any dtype and any device.
void copy(const Tensor& x, Tensor& y);

// ||a - b|| / ||b|| in double over all elements (absolute when b is zero); NaN anywhere gives infinity.
double relative_l2(const Tensor& a, const Tensor& b);
// Largest |a - b| in double; NaN gives infinity.
double max_abs_difference(const Tensor& a, const Tensor& b);

// Binds dimension letters: bind(x, "x[B,N,C]", w, "weight[O,C]") defines each letter at its first use and throws
// when a later use disagrees. "x[...,C]" takes any leading dimensions; numbers are literal; undefined tensors are skipped.
void bind_one(Dims& dims, const Tensor& tensor, std::string_view spec);
inline void bind_into(Dims&) {}
template <class... Rest>
void bind_into(Dims& dims, const Tensor& tensor, std::string_view spec, const Rest&... rest) {
    bind_one(dims, tensor, spec);
    bind_into(dims, rest...);
}
template <class... Args>
Dims bind(const Args&... args) {
    Dims dims;
    bind_into(dims, args...);
    return dims;
}

}  // namespace sana
