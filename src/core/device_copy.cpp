// Copies of which at least one side is not in the host's memory.
#include "core/device_copy.h"

#include "core/copy_queue.h"
#include "core/cuda/device.h"

namespace sana {

namespace {

cuda::Rows rows_of(const Tensor& x) { return {x.raw(), x.row_stride() * size_of(x.dtype()), x.device()}; }

}  // namespace

void copy_across(const Tensor& x, Tensor& y) {
    constexpr int64_t kLarge = int64_t{4} << 20;
    if (x.dtype() == y.dtype() && x.device() == kCpu && x.dense() && y.dense() && x.bytes() >= kLarge) {
        upload(static_cast<const std::byte*>(x.raw()), static_cast<std::byte*>(y.raw()), x.bytes(),
               y.device());
        return;
    }
    if (x.dtype() == y.dtype()) {
        cuda::copy_rows(rows_of(x), rows_of(y), x.cols() * size_of(x.dtype()), x.rows());
        return;
    }
    if (x.device() == y.device() && is_float(x.dtype()) && is_float(y.dtype()) && size_of(x.dtype()) > 1 &&
        size_of(y.dtype()) > 1) {
        cuda::convert_rows(rows_of(x), x.dtype(), rows_of(y), y.dtype(), x.cols(), x.rows());
        return;
    }
    // Other dtypes are converted on the host: ids, masks and frames, all small.
    Tensor host = x.to(kCpu).to(y.dtype());
    copy(host, y);
}

void fill_zero(Tensor& x) {
    check(x.dense(), "zeros are written to dense tensors only, not to ", x);
    cuda::fill(x.device().index, x.raw(), 0, x.bytes());
}

}  // namespace sana
