// half_values: two passes over v, which is small beside the products that it saves. Keys that the mask hides have no say in the
// scale; what they become is not read.
#include "ops/cuda/device/attention.cuh"
#include "ops/cuda/device/mma.cuh"

namespace sana::cuda {

namespace {

constexpr int kThreads = 256, kRows = 64;

// The largest finite |v| of the keys that the mask keeps, for sample and head blockIdx.x; largest holds zeros before.
__global__ void __launch_bounds__(kThreads)
    largest_value_kernel(const __grid_constant__ AttentionProblem<bf16_t> p, float* largest) {
    int heads = p.heads / p.share, sample = static_cast<int>(blockIdx.x) / heads,
        head = static_cast<int>(blockIdx.x) % heads;
    KeySlots slots = key_slots(p, sample, 0, 1);
    int first = static_cast<int>(blockIdx.y) * kRows,
        last = min(first + kRows, p.kept == nullptr ? p.keys : p.kept[sample * (p.keys + 1)]);
    float best = 0;
    for (int item = threadIdx.x; item < (last - first) * p.width / 8; item += kThreads) {
        int slot = first + item / (p.width / 8), column = item % (p.width / 8) * 8;
        int64_t row = static_cast<int64_t>(sample) * p.keys + slots.position(slot);
        float values[8];
        load<8>(p.v + row * p.v_stride + head * p.width + column, values);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            float size = fabsf(values[i]);
            if (size < INFINITY) best = fmaxf(best, size);
        }
    }
    // Floats that are not negative are ordered like their bits.
    atomicMax(reinterpret_cast<int*>(largest) + blockIdx.x, __float_as_int(best));
}

__global__ void __launch_bounds__(kThreads)
    scale_values_kernel(const __grid_constant__ AttentionProblem<bf16_t> p, const float* largest, f16_t* out,
                        int64_t rows) {
    int heads = p.heads / p.share, columns = heads * p.width;
    int64_t item = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x, row = item / (columns / 8);
    if (row >= rows) return;
    int column = static_cast<int>(item % (columns / 8)) * 8;
    float values[8], scale = scale_to_half(largest[row / p.keys * heads + column / p.width]);
    load<8>(p.v + row * p.v_stride + column, values);
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] *= scale;
    store<8>(out + row * columns + column, values);
}

}  // namespace

HalfValues half_values(AttentionProblem<bf16_t>& p, int64_t batch, Device device) {
    int64_t heads = p.heads / p.share, columns = heads * p.width, rows = batch * p.keys;
    HalfValues out{empty({batch, p.keys, columns}, DType::F16, device),
                   empty({batch, heads}, DType::F32, device)};
    cudaStream_t stream = stream_of(device);
    CHECK_CUDA(cudaMemsetAsync(out.largest.raw(), 0, static_cast<size_t>(out.largest.bytes()), stream));
    auto* largest = pointer<float>(out.largest);
    if (rows > 0) {
        dim3 grid(static_cast<unsigned>(batch * heads), static_cast<unsigned>((p.keys + kRows - 1) / kRows));
        largest_value_kernel<<<grid, kThreads, 0, stream>>>(p, largest);
        check_launch("largest_value_kernel", device);
        int64_t items = rows * columns / 8;
        scale_values_kernel<<<static_cast<unsigned>((items + kThreads - 1) / kThreads), kThreads, 0,
                              stream>>>(p, largest, pointer<f16_t>(out.v), rows);
        check_launch("scale_values_kernel", device);
    }
    // The kernel reads v as fp16.
    p.v = static_cast<const bf16_t*>(out.v.raw());
    p.v_stride = columns;
    p.v_largest = largest;
    return out;
}

}  // namespace sana::cuda
