#include "core/cuda/device.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <array>
#include <cstdlib>
#include <mutex>

#include "core/cuda/stream.h"

namespace sana::cuda {

namespace {

constexpr int kMaxDevices = 64;

bool synchronous() {
    static const bool on = [] {
        const char* value = std::getenv("SANA_SYNC");
        return value != nullptr && std::string_view(value) != "0";
    }();
    return on;
}

void make_current(int device) {
    thread_local int current = -1;
    if (current == device) return;
    CHECK_CUDA(cudaSetDevice(device));
    current = device;
}

cudaMemcpyKind kind_of(Device from, Device to) {
    if (from.type == DeviceType::cpu) return cudaMemcpyHostToDevice;
    return to.type == DeviceType::cpu ? cudaMemcpyDeviceToHost : cudaMemcpyDeviceToDevice;
}

template <class T>
__device__ double load_wide(T x) {
    if constexpr (std::is_same_v<T, __nv_bfloat16>) {
        return __bfloat162float(x);
    } else if constexpr (std::is_same_v<T, __half>) {
        return __half2float(x);
    } else {
        return x;
    }
}

template <class To>
__device__ To narrowed(double x) {
    if constexpr (std::is_same_v<To, __nv_bfloat16>) {
        return __float2bfloat16_rn(static_cast<float>(x));
    } else if constexpr (std::is_same_v<To, __half>) {
        return __float2half_rn(static_cast<float>(x));
    } else {
        return static_cast<To>(x);
    }
}

template <class From, class To>
__global__ void convert_kernel(const From* from, int64_t from_stride, To* to, int64_t to_stride, int64_t cols,
                               int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        int64_t row = i / cols, col = i - row * cols;
        to[row * to_stride + col] = narrowed<To>(load_wide(from[row * from_stride + col]));
    }
}

template <class F>
void dispatch(DType dtype, F&& f) {
    switch (dtype) {
        case DType::F32: return f.template operator()<float>();
        case DType::F64: return f.template operator()<double>();
        case DType::BF16: return f.template operator()<__nv_bfloat16>();
        case DType::F16: return f.template operator()<__half>();
        default: fail("elements of dtype ", dtype, " cannot be converted on a CUDA device");
    }
}

}  // namespace

void check_call(cudaError_t error, const char* expression) {
    if (error == cudaSuccess) return;
    fail("CUDA: ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ") in ", expression);
}

void check_launch(const char* kernel, Device device) {
    check_call(cudaGetLastError(), kernel);
    if (synchronous()) check_call(cudaStreamSynchronize(stream_of(device)), kernel);
}

cudaStream_t stream_of(Device device) {
    static std::mutex mutex;
    static std::array<cudaStream_t, kMaxDevices> streams{};
    check(device.type == DeviceType::cuda && device.index >= 0 && device.index < kMaxDevices, "device ",
          device, " has no CUDA stream");
    make_current(device.index);
    std::lock_guard lock(mutex);
    cudaStream_t& stream = streams[static_cast<size_t>(device.index)];
    if (stream == nullptr) CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
}

int device_count() {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess) {
        (void)cudaGetLastError();  // no driver or no device: not an error here
        return 0;
    }
    return count;
}

DeviceInfo device_info(int device) {
    make_current(device);
    cudaDeviceProp properties{};
    CHECK_CUDA(cudaGetDeviceProperties(&properties, device));
    size_t free = 0, total = 0;
    CHECK_CUDA(cudaMemGetInfo(&free, &total));
    return {properties.name,  static_cast<int64_t>(total),   static_cast<int64_t>(free), properties.major,
            properties.minor, properties.multiProcessorCount};
}

void check_usable(Device device) {
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) {
        (void)cudaGetLastError();
        throw InputError(join("no CUDA device can be used: ", cudaGetErrorString(error),
                              "; install NVIDIA's driver (580 or newer), or take --device cpu"));
    }
    if (device.index >= count) {
        throw InputError(join("there is no ", device, ": this machine has ", count, " CUDA device",
                              count == 1 ? "" : "s", ", counted from 0"));
    }
    // An unsupported card fails at its first kernel; ask for one now.
    cudaFuncAttributes attributes{};
    make_current(device.index);
    error = cudaFuncGetAttributes(&attributes, convert_kernel<float, float>);
    if (error != cudaSuccess) {
        (void)cudaGetLastError();
        DeviceInfo info = device_info(device.index);
        throw InputError(join(device, " (", info.name, ", compute capability ", info.major, ".", info.minor,
                              ") is not one that this build has code for: ", cudaGetErrorString(error)));
    }
}

void* allocate(int device, int64_t bytes) {
    make_current(device);
    void* block = nullptr;
    cudaError_t error = cudaMalloc(&block, static_cast<size_t>(bytes));
    if (error == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        return nullptr;
    }
    CHECK_CUDA(error);
    return block;
}

void release(int device, void* block) {
    make_current(device);
    CHECK_CUDA(cudaFree(block));
}

void fill(int device, void* to, int value, int64_t bytes) {
    if (bytes == 0) return;
    CHECK_CUDA(cudaMemsetAsync(to, value, static_cast<size_t>(bytes), stream_of({DeviceType::cuda, device})));
}

void copy_rows(const Rows& from, const Rows& to, int64_t row_bytes, int64_t rows) {
    if (row_bytes == 0 || rows == 0) return;
    check(
        from.device.type == DeviceType::cpu || to.device.type == DeviceType::cpu || from.device == to.device,
        "copies between ", from.device, " and ", to.device, " are not supported");
    Device device = from.device.type == DeviceType::cuda ? from.device : to.device;
    cudaStream_t stream = stream_of(device);
    cudaMemcpyKind kind = kind_of(from.device, to.device);
    bool dense = rows == 1 || (from.pitch == row_bytes && to.pitch == row_bytes);
    if (dense) {
        CHECK_CUDA(cudaMemcpyAsync(to.data, from.data, static_cast<size_t>(row_bytes * rows), kind, stream));
    } else {
        CHECK_CUDA(cudaMemcpy2DAsync(to.data, static_cast<size_t>(to.pitch), from.data,
                                     static_cast<size_t>(from.pitch), static_cast<size_t>(row_bytes),
                                     static_cast<size_t>(rows), kind, stream));
    }
    // Copies of the host's pageable memory may still read or write it when the call returns.
    if (kind != cudaMemcpyDeviceToDevice) CHECK_CUDA(cudaStreamSynchronize(stream));
}

void convert_rows(const Rows& from, DType from_dtype, const Rows& to, DType to_dtype, int64_t cols,
                  int64_t rows) {
    int64_t count = cols * rows;
    if (count == 0) return;
    cudaStream_t stream = stream_of(from.device);
    unsigned blocks = static_cast<unsigned>(std::min<int64_t>((count + 255) / 256, 132 * 16));
    dispatch(from_dtype, [&]<class From>() {
        dispatch(to_dtype, [&]<class To>() {
            convert_kernel<From, To><<<blocks, 256, 0, stream>>>(
                static_cast<const From*>(from.data), from.pitch / static_cast<int64_t>(sizeof(From)),
                static_cast<To*>(to.data), to.pitch / static_cast<int64_t>(sizeof(To)), cols, count);
        });
    });
    check_launch("convert_kernel", from.device);
}

void synchronise(int device) { CHECK_CUDA(cudaStreamSynchronize(stream_of({DeviceType::cuda, device}))); }

}  // namespace sana::cuda
