// attention_by_wgmma: the router, the kernel that lays keys and values out for wgmma, and the launch of the one in
// device/attention_sm90.cuh.
#include <numbers>

#include "ops/cuda/device/attention_sm90.cuh"
#include "ops/cuda/hopper.h"

namespace sana::cuda {

namespace {

using sm90_attention::kRow;
using sm90_attention::kSpan;
using sm90_attention::Layout;
using sm90_attention::Plan;
using sm90_attention::spans;

constexpr int kThreads = 512;

// Where 16-byte vector `vector` of row `row` lies among rows with the swizzle of 128 bytes.
__device__ __forceinline__ int64_t place(int row, int vector) {
    return static_cast<int64_t>(row) * kRow + (vector ^ row % 8) * 16;
}

// Kept keys, then zeros up to a whole span. For sample and key head blockIdx.x: block 0 of y takes v, block 1 k.
template <int Width>
__global__ void __launch_bounds__(kThreads)
    lay_out_keys_kernel(const __grid_constant__ AttentionProblem<bf16_t> p, uint8_t* data, int64_t size,
                        float* largest) {
    constexpr int kVectors = Width / 8;
    extern __shared__ __align__(16) uint8_t shared[];
    __shared__ float bests[kThreads / 32];
    int heads = p.heads / p.share, sample = static_cast<int>(blockIdx.x) / heads,
        head = static_cast<int>(blockIdx.x) % heads;
    KeySlots slots = key_slots(p, sample, 0, 1);
    int rows = spans(slots.last) * kSpan, key_span = spans(p.keys) * kSpan * kRow;
    data += size * blockIdx.x;
    auto vector_of = [&](const bf16_t* x, int64_t stride, int slot, int vector) {
        if (slot >= slots.last) return make_uint4(0, 0, 0, 0);
        int64_t row = static_cast<int64_t>(sample) * p.keys + slots.position(slot);
        return *reinterpret_cast<const uint4*>(x + row * stride + head * Width + vector * 8);
    };
    if (blockIdx.y == 1) {
        for (int item = threadIdx.x; item < rows * kVectors; item += kThreads) {
            int slot = item / kVectors, vector = item % kVectors;
            *reinterpret_cast<uint4*>(data + vector / 8 * key_span + place(slot, vector % 8)) =
                vector_of(p.k, p.k_stride, slot, vector);
        }
        return;
    }
    data += Layout<Width>::kSpans * key_span;
    float best = 0;
    for (int item = threadIdx.x; item < rows * kVectors; item += kThreads) {
        uint4 v = vector_of(p.v, p.v_stride, item / kVectors, item % kVectors);
        reinterpret_cast<uint4*>(shared)[item] = v;
        for (uint32_t pair : {v.x, v.y, v.z, v.w}) {
            float2 values = unpack<bf16_t>(pair);
            for (float size : {fabsf(values.x), fabsf(values.y)}) {
                if (size < INFINITY) best = fmaxf(best, size);
            }
        }
    }
    // Floats that are not negative are ordered like their bits.
    best = __int_as_float(__reduce_max_sync(0xffffffffu, __float_as_int(best)));
    if (threadIdx.x % 32 == 0) bests[threadIdx.x / 32] = best;
    __syncthreads();
    for (float other : bests) best = fmaxf(best, other);
    if (threadIdx.x == 0) largest[blockIdx.x] = best;
    float scale = scale_to_half(best);
    const auto* values = reinterpret_cast<const bf16_t*>(shared);
    for (int item = threadIdx.x; item < rows / 8 * Width; item += kThreads) {
        int column = item % Width, eight = item / Width;  // of keys
        const bf16_t* from = values + eight * 8 * Width + column;
        auto pair = [&](int i) {
            return pack<f16_t>(to_float(from[i * Width]) * scale, to_float(from[(i + 1) * Width]) * scale);
        };
        *reinterpret_cast<uint4*>(data + eight / 8 * (Width * kRow) + place(column, eight % 8)) =
            make_uint4(pair(0), pair(2), pair(4), pair(6));
    }
}

template <int Width>
bool launch(const AttentionProblem<bf16_t>& p, int64_t batch, Device device) {
    using L = Layout<Width>;
    if (p.keys > L::kMaxKeys) return false;
    cudaStream_t stream = stream_of(device);
    int used = spans(p.keys), kv_heads = p.heads / p.share;
    int64_t size = int64_t{used} * (L::kSpans * kSpan * kRow + L::kValueSpan);
    Tensor data = empty({batch * kv_heads, size / 2}, DType::BF16, device),
           largest = empty({batch, kv_heads}, DType::F32, device);
    int rows_bytes = used * kSpan * Width * 2;
    auto lay_out = lay_out_keys_kernel<Width>;
    CHECK_CUDA(cudaFuncSetAttribute(lay_out, cudaFuncAttributeMaxDynamicSharedMemorySize, rows_bytes));
    auto* bytes = static_cast<uint8_t*>(data.raw());
    lay_out<<<dim3(static_cast<unsigned>(batch * kv_heads), 2), kThreads, static_cast<size_t>(rows_bytes),
              stream>>>(p, bytes, size, pointer<float>(largest));
    check_launch("lay_out_keys_kernel", device);

    auto rows_of = [&](const bf16_t* x, int64_t stride) {
        int64_t sizes[4] = {Width, p.heads, p.queries, batch},
                strides[4] = {1, Width, stride, stride * p.queries};
        int box[4] = {kSpan, 1, sm90_attention::kRows, 1};
        return tensor_map(x, 4, sizes, strides, box);
    };
    int tiles = (p.queries + sm90_attention::kTile - 1) / sm90_attention::kTile;
    Plan plan{bytes,
              size,
              pointer<float>(largest),
              p.kept,
              static_cast<int>(batch),
              p.heads,
              p.share,
              p.keys,
              tiles,
              p.scale * std::numbers::log2e_v<float>};
    auto kernel = sm90_attention::attention_sm90_kernel<Width>;
    CHECK_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kBytes));
    int64_t blocks = std::min<int64_t>(multiprocessors(device), batch * p.heads * tiles);
    kernel<<<static_cast<unsigned>(blocks), sm90_attention::kThreads, L::kBytes, stream>>>(
        rows_of(p.q, p.q_stride), rows_of(p.y, p.y_stride), plan);
    check_launch("attention_sm90_kernel", device);
    return true;
}

}  // namespace

bool attention_by_wgmma(const AttentionProblem<bf16_t>& p, int64_t batch, Device device) {
    if (!is_hopper(device) || p.causal || p.window > 0 || p.cap > 0 || !(p.scale > 0)) return false;
    if (p.keys < 1) return false;
    if (!aligned(p.q, p.q_stride) || !aligned(p.k, p.k_stride) || !aligned(p.v, p.v_stride) ||
        !aligned(p.y, p.y_stride))
        return false;
    if (batch * p.heads * (p.queries / sm90_attention::kTile + 1) > INT32_MAX / 2) return false;
    switch (p.width) {
        case 64: return launch<64>(p, batch, device);
        case 112: return launch<112>(p, batch, device);
        case 128: return launch<128>(p, batch, device);
        default: return false;
    }
}

}  // namespace sana::cuda
