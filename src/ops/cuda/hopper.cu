#include "ops/cuda/hopper.h"

#include <array>
#include <mutex>

#include "core/check.h"
#include "core/cuda/stream.h"

namespace sana::cuda {

namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

Encode encoder() {
    static Encode function = [] {
        void* f = nullptr;
        cudaDriverEntryPointQueryResult result{};
        CHECK_CUDA(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault,
                                                    &result));
        check(result == cudaDriverEntryPointSuccess,
              "this driver has no cuTensorMapEncodeTiled; install a newer one");
        return reinterpret_cast<Encode>(f);
    }();
    return function;
}

int attribute(cudaDeviceAttr which, Device device) {
    int value = 0;
    CHECK_CUDA(cudaDeviceGetAttribute(&value, which, device.index));
    return value;
}

// Asked once a device.
template <cudaDeviceAttr Which>
int remembered(Device device) {
    static std::mutex mutex;
    static std::array<int, 64> values{};
    std::lock_guard lock(mutex);
    int& value = values[static_cast<size_t>(device.index)];
    if (value == 0) value = attribute(Which, device);
    return value;
}

}  // namespace

bool is_hopper(Device device) { return remembered<cudaDevAttrComputeCapabilityMajor>(device) == 9; }

int multiprocessors(Device device) { return remembered<cudaDevAttrMultiProcessorCount>(device); }

CUtensorMap tensor_map(const void* data, int rank, const int64_t* sizes, const int64_t* strides,
                       const int* box, bool swizzled) {
    cuuint64_t dims[5], pitch[5];
    cuuint32_t boxes[5], steps[5] = {1, 1, 1, 1, 1};
    for (int i = 0; i < rank; ++i) {
        dims[i] = static_cast<cuuint64_t>(sizes[i]);
        boxes[i] = static_cast<cuuint32_t>(box[i]);
        if (i > 0) pitch[i - 1] = static_cast<cuuint64_t>(strides[i] * 2);
    }
    CUtensorMapSwizzle swizzle = !swizzled      ? CU_TENSOR_MAP_SWIZZLE_NONE
                                 : box[0] == 64 ? CU_TENSOR_MAP_SWIZZLE_128B
                                                : CU_TENSOR_MAP_SWIZZLE_64B;
    CUtensorMap map{};
    CUresult result =
        encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(rank),
                  const_cast<void*>(data), dims, pitch, boxes, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    check(result == CUDA_SUCCESS, "cuTensorMapEncodeTiled: error ", static_cast<int>(result));
    return map;
}

}  // namespace sana::cuda
