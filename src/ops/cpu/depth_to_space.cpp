#include "ops/depth_to_space.h"

#include "core/parallel.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/simd.h"

namespace sana::cpu {

void depth_to_space(const DepthToSpaceArgs& args) {
    const auto& [R, P, Q] = args.options.stride;
    int64_t T = args.y.dim(1), H = args.y.dim(2), W = args.y.dim(3), C = args.y.dim(4);
    int64_t K = args.x.cols(), S = args.shortcut.defined() ? args.shortcut.cols() : 0;
    dispatch_float(args.x.dtype(), [&]<class Element>() {
        using Sum = compute_t<Element>;
        const Element* x = args.x.data<Element>();
        const Element* shortcut = S > 0 ? args.shortcut.data<Element>() : nullptr;
        parallel_for(args.y.dim(0) * T * H, W * C, [&](int64_t line) {
            int64_t h = line % H, t = line / H % T + args.options.drop, b = line / H / T;
            int64_t frame = b * args.x.dim(1) + t / R, row = frame * args.x.dim(2) + h / P;
            for (int64_t w = 0; w < W; ++w) {
                int64_t position = row * args.x.dim(3) + w / Q, r = t % R, p = h % P, q = w % Q;
                int64_t offset = args.options.rows_fastest ? (r * Q + q) * P + p : (r * P + p) * Q + q;
                Element* y = args.y.data<Element>() + (line * W + w) * C;
                for (int64_t c = 0; c < C; ++c) {
                    int64_t k = c * R * P * Q + offset;
                    Sum value = static_cast<Sum>(x[position * K + k]);
                    if (S > 0) value += static_cast<Sum>(shortcut[position * S + k % S]);
                    y[c] = Element(value);
                }
            }
        });
    });
}

}  // namespace sana::cpu
