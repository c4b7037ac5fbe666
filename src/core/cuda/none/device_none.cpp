// A build without CUDA.
#include "core/cuda/device.h"

namespace sana::cuda {

namespace {

[[noreturn]] void none() {
    throw InputError("this build has no CUDA; build with `cmake --preset cuda`, or take --device cpu");
}

}  // namespace

int device_count() { return 0; }
DeviceInfo device_info(int) { none(); }
void check_usable(Device) { none(); }
void* allocate(int, int64_t) { none(); }
void release(int, void*) { none(); }
void fill(int, void*, int, int64_t) { none(); }
void copy_rows(const Rows&, const Rows&, int64_t, int64_t) { none(); }
void convert_rows(const Rows&, DType, const Rows&, DType, int64_t, int64_t) { none(); }
void fill_normal(int, float*, int64_t, const NormalSource&) { none(); }
void synchronise(int) { none(); }

}  // namespace sana::cuda
