#include "core/tensor.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "core/device_copy.h"

namespace sana {

namespace {

// Calls f.operator()<T>() for the C++ type of every dtype that elements can be read from or written to.
template <class F>
void dispatch_any(DType dtype, F&& f) {
    switch (dtype) {
        case DType::F32: return f.template operator()<float>();
        case DType::F64: return f.template operator()<double>();
        case DType::BF16: return f.template operator()<bf16>();
        case DType::F16: return f.template operator()<f16>();
        case DType::I64: return f.template operator()<int64_t>();
        case DType::I32: return f.template operator()<int32_t>();
        case DType::I16: return f.template operator()<int16_t>();
        case DType::I8: return f.template operator()<int8_t>();
        case DType::U8:
        case DType::Bool: return f.template operator()<uint8_t>();
        default: fail("elements of dtype ", dtype, " cannot be converted");
    }
}

template <class To, class From>
To convert(From value) {
    if constexpr (std::is_same_v<To, bf16> || std::is_same_v<To, f16>) {
        return To(static_cast<float>(value));
    } else if constexpr (std::is_same_v<From, bf16> || std::is_same_v<From, f16>) {
        return static_cast<To>(static_cast<float>(value));
    } else {
        return static_cast<To>(value);
    }
}

template <class T>
T* row_pointer(const Tensor& x, int64_t row) {
    return static_cast<T*>(x.raw()) + row * x.row_stride();
}

}  // namespace

Tensor::Tensor(StoragePtr storage, int64_t byte_offset, DType dtype, const Shape& shape)
    : storage_(std::move(storage)), offset_(byte_offset), shape_(shape), dtype_(dtype) {
    row_stride_ = cols();
    check(offset_ >= 0 && offset_ + bytes() <= storage_->bytes(), "tensor ", *this, " at byte ", offset_,
          " does not fit its storage of ", storage_->bytes(), " bytes");
}

Tensor Tensor::reshape(const Shape& shape) const {
    check(dense(), "reshape of ", *this, " to ", shape, ": rows are strided");
    Shape target = shape;
    int64_t known = 1;
    int unknown = -1;
    for (int i = 0; i < target.rank(); ++i) {
        if (target[i] == -1) {
            check(unknown < 0, "reshape to ", shape, ": more than one -1");
            unknown = i;
        } else {
            known *= target[i];
        }
    }
    if (unknown >= 0) target[unknown] = known == 0 ? 0 : numel() / known;
    check(target.numel() == numel(), "reshape of ", *this, " to ", shape);
    Tensor out = *this;
    out.shape_ = target;
    out.row_stride_ = out.cols();
    return out;
}

Tensor Tensor::cols_slice(int64_t start, int64_t length) const {
    check(start >= 0 && length >= 0 && start + length <= cols(), "columns ", start, " .. ", start + length,
          " of ", *this);
    Tensor out = *this;
    out.shape_[-1] = length;
    out.offset_ += start * size_of(dtype_);
    return out;
}

Tensor Tensor::outer_slice(int64_t start, int64_t length) const {
    check(dense() && rank() > 0 && start >= 0 && length >= 0 && start + length <= dim(0), "rows ", start,
          " .. ", start + length, " of ", *this);
    Tensor out = *this;
    int64_t inner = dim(0) == 0 ? 0 : numel() / dim(0);
    out.shape_[0] = length;
    out.offset_ += start * inner * size_of(dtype_);
    out.row_stride_ = out.cols();
    return out;
}

Tensor Tensor::select(int64_t index) const {
    Tensor slice = outer_slice(index, 1);
    Shape inner;
    for (int i = 1; i < rank(); ++i) inner.push_back(dim(i));
    return slice.reshape(inner);
}

Tensor Tensor::rebased(StoragePtr storage, int64_t byte_offset) const {
    int64_t reach = rows() == 0 ? 0 : ((rows() - 1) * row_stride_ + cols()) * size_of(dtype_);
    check(byte_offset >= 0 && byte_offset + reach <= storage->bytes(), "tensor ", *this,
          " does not fit a storage of ", storage->bytes(), " bytes");
    Tensor out = *this;
    out.storage_ = std::move(storage);
    out.offset_ = byte_offset;
    return out;
}

Tensor Tensor::to(DType dtype) const {
    if (dtype == dtype_) return *this;
    Tensor out = empty(shape_, dtype, device());
    copy(*this, out);
    out.name_ = name_;
    return out;
}

Tensor Tensor::to(Device device) const {
    if (!defined() || device == this->device()) return *this;
    Tensor out = empty(shape_, dtype_, device);
    copy(*this, out);
    out.name_ = name_;
    return out;
}

Tensor Tensor::contiguous() const { return dense() ? *this : clone(); }

Tensor Tensor::clone() const {
    Tensor out = empty(shape_, dtype_, device());
    copy(*this, out);
    out.name_ = name_;
    return out;
}

Tensor Tensor::named(std::string name) const {
    Tensor out = *this;
    out.name_ = std::move(name);
    return out;
}

void print(std::string& out, const Tensor& tensor) {
    if (!tensor.name().empty()) {
        out += tensor.name();
        out += " = ";
    }
    if (!tensor.defined()) {
        out += "none";
        return;
    }
    print(out, tensor.dtype());
    print(out, tensor.shape());
}

Tensor empty(const Shape& shape, DType dtype, Device device) {
    for (int64_t dim : shape) check(dim >= 0, "a tensor of shape ", shape, " was asked for");
    return Tensor(allocate(shape.numel() * size_of(dtype), device), 0, dtype, shape);
}

Tensor zeros(const Shape& shape, DType dtype, Device device) {
    Tensor out = empty(shape, dtype, device);
    if (device == kCpu) {
        std::memset(out.raw(), 0, static_cast<size_t>(out.bytes()));
    } else {
        fill_zero(out);
    }
    return out;
}

Tensor full(const Shape& shape, double value, DType dtype, Device device) {
    Tensor out = empty(shape, dtype);
    dispatch_any(dtype, [&]<class T>() {
        T* p = static_cast<T*>(out.raw());
        for (int64_t i = 0; i < out.numel(); ++i) p[i] = convert<T>(value);
    });
    return out.to(device);
}

Tensor empty_like(const Tensor& x) { return empty(x.shape(), x.dtype(), x.device()); }

template <class T>
Tensor from_vector(const std::vector<T>& values, const Shape& shape) {
    check(shape.numel() == static_cast<int64_t>(values.size()), "shape ", shape, " for ", values.size(),
          " values");
    Tensor out = empty(shape, dtype_of<T>());
    if (!values.empty()) std::memcpy(out.raw(), values.data(), values.size() * sizeof(T));
    return out;
}
template Tensor from_vector(const std::vector<float>&, const Shape&);
template Tensor from_vector(const std::vector<double>&, const Shape&);
template Tensor from_vector(const std::vector<int64_t>&, const Shape&);
template Tensor from_vector(const std::vector<int32_t>&, const Shape&);
template Tensor from_vector(const std::vector<uint8_t>&, const Shape&);

template <class T>
std::vector<T> to_vector(const Tensor& x) {
    std::vector<T> out(static_cast<size_t>(x.numel()));
    Tensor dense = x.to(kCpu).contiguous();
    dispatch_any(x.dtype(), [&]<class From>() {
        const From* p = static_cast<const From*>(dense.raw());
        for (size_t i = 0; i < out.size(); ++i) out[i] = convert<T>(p[i]);
    });
    return out;
}
template std::vector<float> to_vector(const Tensor&);
template std::vector<double> to_vector(const Tensor&);
template std::vector<int64_t> to_vector(const Tensor&);

void copy(const Tensor& x, Tensor& y) {
    check(x.shape() == y.shape(), "copy of ", x, " to ", y);
    if (x.device() != kCpu || y.device() != kCpu) return copy_across(x, y);
    int64_t rows = x.rows(), cols = x.cols();
    if (x.dtype() == y.dtype()) {
        size_t row_bytes = static_cast<size_t>(cols * size_of(x.dtype()));
#pragma omp parallel for if (rows * cols > 1 << 16)
        for (int64_t r = 0; r < rows; ++r) {
            std::memcpy(static_cast<std::byte*>(y.raw()) + r * y.row_stride() * size_of(y.dtype()),
                        static_cast<std::byte*>(x.raw()) + r * x.row_stride() * size_of(x.dtype()),
                        row_bytes);
        }
        return;
    }
    dispatch_any(x.dtype(), [&]<class From>() {
        dispatch_any(y.dtype(), [&]<class To>() {
#pragma omp parallel for if (rows * cols > 1 << 16)
            for (int64_t r = 0; r < rows; ++r) {
                const From* from = row_pointer<From>(x, r);
                To* to = row_pointer<To>(y, r);
                for (int64_t c = 0; c < cols; ++c) to[c] = convert<To>(from[c]);
            }
        });
    });
}

double relative_l2(const Tensor& a, const Tensor& b) {
    check(a.shape() == b.shape(), "difference of ", a, " and ", b);
    std::vector<double> x = to_vector<double>(a), y = to_vector<double>(b);
    double difference = 0, norm = 0;
    for (size_t i = 0; i < x.size(); ++i) {
        difference += (x[i] - y[i]) * (x[i] - y[i]);
        norm += y[i] * y[i];
    }
    double result = std::sqrt(norm > 0 ? difference / norm : difference);
    return std::isnan(result) ? std::numeric_limits<double>::infinity() : result;
}

double max_abs_difference(const Tensor& a, const Tensor& b) {
    check(a.shape() == b.shape(), "difference of ", a, " and ", b);
    std::vector<double> x = to_vector<double>(a), y = to_vector<double>(b);
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
        double d = std::abs(x[i] - y[i]);
        if (std::isnan(d)) return std::numeric_limits<double>::infinity();
        worst = std::max(worst, d);
    }
    return worst;
}

void bind_one(Dims& dims, const Tensor& tensor, std::string_view spec) {
    if (!tensor.defined()) return;
    size_t open = spec.find('[');
    check(open != std::string_view::npos && spec.back() == ']', "bad dimension pattern ", spec);
    std::vector<std::string_view> items;
    std::string_view list = spec.substr(open + 1, spec.size() - open - 2);
    while (!list.empty()) {
        size_t comma = list.find(',');
        items.push_back(list.substr(0, comma));
        list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
    }
    bool leading = !items.empty() && items[0] == "...";
    int named = static_cast<int>(items.size()) - (leading ? 1 : 0);
    check(leading ? tensor.rank() >= named : tensor.rank() == named, spec, " does not describe ", tensor);
    for (int i = 0; i < named; ++i) {
        std::string_view item = items[items.size() - 1 - static_cast<size_t>(i)];
        int64_t actual = tensor.dim(-1 - i);
        int64_t expected = actual;
        if (item[0] >= '0' && item[0] <= '9') {
            expected = std::stoll(std::string(item));
        } else if (dims.has(item[0])) {
            expected = dims[item[0]];
        } else {
            dims.set(item[0], actual);
        }
        check(actual == expected, item, " is ", actual, " in ", spec, " of ", tensor, ", but it must be ",
              expected, " (", dims, ")");
    }
}

}  // namespace sana
