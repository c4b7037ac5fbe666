// strided_copy: neighbouring dimensions that are contiguous in both layouts become one; a thread moves one element of the
// widest type that all strides and addresses allow (16 bytes where rows are dense).
#include "ops/layout.h"

#include "ops/cuda/cuda.h"
#include "ops/cuda/device/element.cuh"

namespace sana::cuda {

namespace {

struct Plan {
    int rank = 0;
    int64_t sizes[Shape::kMaxRank], from[Shape::kMaxRank], to[Shape::kMaxRank];
};

Plan collapse(const StridedCopyArgs& args) {
    Plan plan;
    for (int i = 0; i < args.shape.rank(); ++i) {
        if (args.shape[i] == 1) continue;
        int last = plan.rank - 1;
        bool joined = plan.rank > 0 && plan.from[last] == args.shape[i] * args.from_strides[i] &&
                      plan.to[last] == args.shape[i] * args.to_strides[i];
        if (joined) {
            plan.sizes[last] *= args.shape[i];
        } else {
            plan.sizes[++last] = args.shape[i];
            plan.rank += 1;
        }
        plan.from[last] = args.from_strides[i];
        plan.to[last] = args.to_strides[i];
    }
    if (plan.rank == 0) {
        plan.rank = 1;
        plan.sizes[0] = plan.from[0] = plan.to[0] = 1;
    }
    return plan;
}

// How many bytes can move at once: elements are joined while the last dimension is dense on both sides.
int64_t widen(const StridedCopyArgs& args, Plan& plan) {
    int64_t bytes = args.element_bytes;
    int last = plan.rank - 1;
    while (bytes < 16 && plan.from[last] == 1 && plan.to[last] == 1 && plan.sizes[last] % 2 == 0) {
        int64_t wide = bytes * 2;
        bool even = reinterpret_cast<uintptr_t>(args.from) % static_cast<uintptr_t>(wide) == 0 &&
                    reinterpret_cast<uintptr_t>(args.to) % static_cast<uintptr_t>(wide) == 0;
        for (int i = 0; i < last; ++i) even = even && plan.from[i] % 2 == 0 && plan.to[i] % 2 == 0;
        if (!even) break;
        for (int i = 0; i < last; ++i) {
            plan.from[i] /= 2;
            plan.to[i] /= 2;
        }
        plan.sizes[last] /= 2;
        bytes = wide;
    }
    return bytes;
}

template <class E>
__global__ void strided_copy_kernel(const E* from, E* to, Plan plan, int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        int64_t rest = i, from_offset = 0, to_offset = 0;
        for (int axis = plan.rank - 1; axis >= 0; --axis) {
            int64_t position = rest % plan.sizes[axis];
            rest /= plan.sizes[axis];
            from_offset += position * plan.from[axis];
            to_offset += position * plan.to[axis];
        }
        to[to_offset] = from[from_offset];
    }
}

template <class E>
void run(const StridedCopyArgs& args, const Plan& plan) {
    int64_t count = 1;
    for (int i = 0; i < plan.rank; ++i) count *= plan.sizes[i];
    strided_copy_kernel<E><<<grid_for(count, 256), 256, 0, stream_of(args.device)>>>(
        static_cast<const E*>(args.from), static_cast<E*>(args.to), plan, count);
    check_launch("strided_copy", args.device);
}

}  // namespace

void strided_copy(const StridedCopyArgs& args) {
    if (args.shape.numel() == 0) return;
    Plan plan = collapse(args);
    switch (widen(args, plan)) {
        case 1: return run<uint8_t>(args, plan);
        case 2: return run<uint16_t>(args, plan);
        case 4: return run<uint32_t>(args, plan);
        case 8: return run<uint2>(args, plan);
        case 16: return run<uint4>(args, plan);
        default: fail("strided copy of elements of ", args.element_bytes, " bytes");
    }
}

}  // namespace sana::cuda
