#include "ops/layout.h"

#include <cstring>

#include "core/parallel.h"
#include "ops/cpu/cpu.h"

namespace sana::cpu {

namespace {

// The same copy over fewer dimensions: neighbours that are contiguous in both layouts become one.
struct Plan {
    std::vector<int64_t> sizes, from, to;
};

Plan collapse(const StridedCopyArgs& args) {
    Plan plan;
    for (int i = 0; i < args.shape.rank(); ++i) {
        if (args.shape[i] == 1) continue;
        bool joined = !plan.sizes.empty() && plan.from.back() == args.shape[i] * args.from_strides[i] &&
                      plan.to.back() == args.shape[i] * args.to_strides[i];
        if (joined) {
            plan.sizes.back() *= args.shape[i];
            plan.from.back() = args.from_strides[i];
            plan.to.back() = args.to_strides[i];
        } else {
            plan.sizes.push_back(args.shape[i]);
            plan.from.push_back(args.from_strides[i]);
            plan.to.push_back(args.to_strides[i]);
        }
    }
    if (plan.sizes.empty()) plan = {{1}, {1}, {1}};
    return plan;
}

template <class E>
void run(const StridedCopyArgs& args) {
    Plan plan = collapse(args);
    size_t last = plan.sizes.size() - 1;
    int64_t inner = plan.sizes[last], from_step = plan.from[last], to_step = plan.to[last], outer = 1;
    for (size_t i = 0; i < last; ++i) outer *= plan.sizes[i];
    parallel_for(outer, inner, [&](int64_t index) {
        int64_t from_offset = 0, to_offset = 0;
        for (size_t i = last; i-- > 0;) {
            int64_t position = index % plan.sizes[i];
            index /= plan.sizes[i];
            from_offset += position * plan.from[i];
            to_offset += position * plan.to[i];
        }
        const E* from = static_cast<const E*>(args.from) + from_offset;
        E* to = static_cast<E*>(args.to) + to_offset;
        if (from_step == 1 && to_step == 1) {
            std::memcpy(to, from, static_cast<size_t>(inner) * sizeof(E));
        } else {
            for (int64_t i = 0; i < inner; ++i) to[i * to_step] = from[i * from_step];
        }
    });
}

}  // namespace

void strided_copy(const StridedCopyArgs& args) {
    if (args.shape.numel() == 0) return;
    switch (args.element_bytes) {
        case 1: return run<uint8_t>(args);
        case 2: return run<uint16_t>(args);
        case 4: return run<uint32_t>(args);
        case 8: return run<uint64_t>(args);
        default: fail("strided copy of elements of ", args.element_bytes, " bytes");
    }
}

}  // namespace sana::cpu
