// hopper_product: the maps for the copy engine, the tile width, and the launch of the kernel in device/gemm_sm90.cuh.
#include "ops/cuda/gemm_sm90.h"

#include <array>
#include <mutex>

#include "core/cuda/device.h"
#include "ops/cuda/device/element.cuh"
#include "ops/cuda/device/gemm_sm90.cuh"

namespace sana::cuda {

namespace {

using sm90_gemm::Ends;
using sm90_gemm::kRow;
using sm90_gemm::kRows;
using sm90_gemm::Plan;

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

// A map of rows of 128-byte boxes; strides in bytes, that of the first axis is an element.
template <class In, int Rank>
CUtensorMap tensor_map(const void* data, std::array<int64_t, Rank> sizes, std::array<int64_t, Rank> strides,
                       int rows) {
    cuuint64_t dims[Rank], pitch[Rank];
    cuuint32_t box[Rank], steps[Rank];
    for (size_t i = 0; i < Rank; ++i) {
        dims[i] = static_cast<cuuint64_t>(sizes[i]);
        box[i] = steps[i] = 1;
        if (i > 0) pitch[i - 1] = static_cast<cuuint64_t>(strides[i]);
    }
    box[0] = kRow / sizeof(In);
    box[1] = static_cast<cuuint32_t>(rows);
    CUtensorMap map{};
    CUresult result = encoder()(
        &map, sizeof(In) == 2 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_UINT8, Rank,
        const_cast<void*>(data), dims, pitch, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    check(result == CUDA_SUCCESS, "cuTensorMapEncodeTiled: error ", static_cast<int>(result));
    return map;
}

struct Chip {
    int major = 0, multiprocessors = 0;
};

Chip chip_of(Device device) {
    static std::mutex mutex;
    static std::array<Chip, 64> known{};
    std::lock_guard lock(mutex);
    Chip& chip = known[static_cast<size_t>(device.index)];
    if (chip.major == 0) {
        CHECK_CUDA(
            cudaDeviceGetAttribute(&chip.multiprocessors, cudaDevAttrMultiProcessorCount, device.index));
        CHECK_CUDA(cudaDeviceGetAttribute(&chip.major, cudaDevAttrComputeCapabilityMajor, device.index));
    }
    return chip;
}

template <class In, int N, bool Activated, bool Identity>
void launch_tiles(const HopperProduct& p, Plan g, const Ends& e) {
    using L = sm90_gemm::Layout<N>;
    constexpr int64_t kSize = sizeof(In), kSpan = kRow / kSize;
    g.chunks = static_cast<int>((p.channels + kSpan - 1) / kSpan);
    g.column_tiles = static_cast<int>((p.width + N - 1) / N);
    g.row_clusters = static_cast<int>((g.row_tiles * p.batch + 1) / 2);
    CUtensorMap x = tensor_map<In, 3>(p.x, {p.channels, p.x_rows, p.batch},
                                      {kSize, p.x_stride * kSize, p.x_stride * p.x_rows * kSize}, kRows);
    int64_t depth = p.taps * p.channels;
    CUtensorMap w = tensor_map<In, 2>(p.w, {depth, p.width}, {kSize, depth * kSize}, N / 2);
    auto kernel = sm90_gemm::hopper_product_kernel<In, N, Activated, Identity>;
    CHECK_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kBytes));
    int clusters = std::min(chip_of(p.device).multiprocessors / 2, g.row_clusters * g.column_tiles);
    kernel<<<static_cast<unsigned>(clusters * 2), sm90_gemm::kThreads, L::kBytes, stream_of(p.device)>>>(
        x, w, g, e);
    check_launch("hopper_product_kernel", p.device);
}

template <class In, int N>
void launch_ends(const HopperProduct& p, const Plan& g, const Ends& e) {
    if (p.activation != Activation::none) return launch_tiles<In, N, true, true>(p, g, e);
    if (p.identity != nullptr) return launch_tiles<In, N, false, true>(p, g, e);
    launch_tiles<In, N, false, false>(p, g, e);
}

// 224 columns divide the widths of the released transformers. Narrower tiles are a tenth slower a column: they are for widths
// that would leave more than that of the wide ones empty (256: 43 %).
template <class In>
void launch(const HopperProduct& p, const Plan& g, const Ends& e) {
    auto padded = [&](int64_t tile) { return (p.width + tile - 1) / tile * tile; };
    10 * padded(224) > 11 * padded(128) ? launch_ends<In, 128>(p, g, e) : launch_ends<In, 224>(p, g, e);
}

bool aligned(const void* p, int64_t stride) {
    return p == nullptr || (reinterpret_cast<uintptr_t>(p) % 16 == 0 && stride % 16 == 0);
}

}  // namespace

bool hopper_product(const HopperProduct& p) {
    int64_t size = size_of(p.dtype);
    if ((p.dtype != DType::BF16 && p.dtype != DType::F8E4M3) || chip_of(p.device).major != 9) return false;
    if (p.batch * std::max(p.x_rows, p.y_rows) > INT32_MAX - 1024) return false;
    if (!aligned(p.x, p.x_stride * size) || !aligned(p.w, p.channels * size) || p.width % 8 != 0)
        return false;
    if (!aligned(p.y, p.y_stride * 2) || !aligned(p.bias, 0) || !aligned(p.identity, p.identity_stride * 2) ||
        !aligned(p.gate, p.gate_stride * 2) || !aligned(p.residual, p.residual_stride * 2)) {
        return false;
    }
    Plan g{};
    g.row_tiles = static_cast<int>((p.y_rows + kRows - 1) / kRows);
    g.y_rows = static_cast<int>(p.y_rows);
    g.x_rows = static_cast<int>(p.x_rows);
    g.batch = static_cast<int>(p.batch);
    g.taps = static_cast<int>(p.taps);
    g.before = static_cast<int>(p.before);
    g.tap_step = static_cast<int>(p.tap_step);
    g.channels = static_cast<int>(p.channels);
    g.tokens = static_cast<int>(p.tokens);
    g.groups = static_cast<int>(p.groups);
    g.per_group = static_cast<int>(std::max<int64_t>(1, p.tokens / p.groups));
    Ends e{p.y,
           p.bias,
           p.identity,
           p.gate,
           p.residual,
           p.x_scale,
           p.w_scale,
           p.y_stride,
           p.identity_stride,
           p.gate_stride,
           p.residual_stride,
           static_cast<int>(p.width),
           p.activation};
    if (p.dtype == DType::BF16) {
        launch<bf16_t>(p, g, e);
    } else {
        launch<__nv_fp8_e4m3>(p, g, e);
    }
    return true;
}

}  // namespace sana::cuda
