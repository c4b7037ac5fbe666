#include "ops/rope.h"

#include "core/parallel.h"
#include "ops/cpu/cpu.h"

namespace sana::cpu {

void rotate_half(const RotateHalfArgs& args) {
    dispatch_float(args.x.dtype(), [&]<class T>() {
        using C = compute_t<T>;
        int64_t tokens = args.x.dim(1), pairs = args.rope.cos.dim(1);
        parallel_for(args.x.rows(), args.x.cols() * 4, [&](int64_t r) {
            const float* cosines = args.rope.cos.data<float>() + r % tokens * pairs;
            const float* sines = args.rope.sin.data<float>() + r % tokens * pairs;
            for (int64_t a = 0; a < args.heads; ++a) {
                const T* x = args.x.data<T>() + r * args.x.row_stride() + a * 2 * pairs;
                T* y = args.y.data<T>() + r * args.y.row_stride() + a * 2 * pairs;
                for (int64_t j = 0; j < pairs; ++j) {
                    C c = static_cast<C>(cosines[j]), s = static_cast<C>(sines[j]);
                    C x1 = static_cast<C>(x[j]), x2 = static_cast<C>(x[j + pairs]);
                    y[j] = T(x1 * c - x2 * s);
                    y[j + pairs] = T(x2 * c + x1 * s);
                }
            }
        });
    });
}

}  // namespace sana::cpu
