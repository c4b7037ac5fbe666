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
void pin(void*, int64_t) { none(); }
void unpin(void*) {}
void* make_queue(int) { none(); }
void destroy_queue(int, void*) {}
void queue_copy(int, void*, const void*, void*, int64_t) { none(); }
void finish_queue(int, void*) { none(); }
void queue_waits_for_device(int, void*) { none(); }
void device_waits_for_queue(int, void*) { none(); }
void begin_recording(int) { none(); }
void drop_recording(int) {}
void* end_recording(int) { none(); }
void launch_graph(int, void*) { none(); }
void destroy_graph(int, void*) {}

}  // namespace sana::cuda
