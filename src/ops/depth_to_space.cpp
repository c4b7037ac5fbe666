#include "ops/depth_to_space.h"

#include "ops/gradients.h"
#include "ops/kernels.h"

namespace sana {

Tensor depth_to_space(const Tensor& x, const Tensor& shortcut, const DepthToSpaceOptions& options) {
    DType dtype = same_dtype("depth_to_space", {&x, &shortcut});
    Dims d = bind_op("depth_to_space", {{x, "x[B,T,H,W,K]"}, {shortcut, "shortcut[B,T,H,W,S]", kMayBeNone}});
    check(x.dense() && (!shortcut.defined() || shortcut.dense()), "depth_to_space: ", x, " must be dense");
    const auto& [frames, rows, columns] = options.stride;
    check(frames > 0 && rows > 0 && columns > 0 && d['K'] % (frames * rows * columns) == 0,
          "depth_to_space: ", x, " has no multiple of ", frames, " x ", rows, " x ", columns, " channels");
    check(options.drop >= 0 && options.drop < frames, "depth_to_space: ", options.drop, " of ", frames,
          " frames cannot be dropped");
    check(!shortcut.defined() || (d['S'] > 0 && d['K'] % d['S'] == 0), "depth_to_space: the channels of ",
          shortcut, " do not divide those of ", x);
    Tensor y = empty({d['B'], std::max<int64_t>(0, d['T'] * frames - options.drop), d['H'] * rows,
                      d['W'] * columns, d['K'] / (frames * rows * columns)},
                     dtype, x.device());
    launch("depth_to_space", &Kernels::depth_to_space, x.device(), DepthToSpaceArgs{x, shortcut, options, y});
    record_depth_to_space(x, shortcut, options, y);
    return y;
}

}  // namespace sana
