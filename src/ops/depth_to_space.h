// Channels that become frames, rows and columns.
#pragma once

#include <array>

#include "core/tensor.h"

namespace sana {

struct DepthToSpaceOptions {
    std::array<int64_t, 3> stride = {1, 1, 1};  // R P Q: frames, rows, columns that one position becomes
    int64_t drop = 0;           // of the result's frames the first so many are left out, at most R - 1
    bool rows_fastest = false;  // k = ((c*R + r)*Q + q)*P + p instead
};

// y[b, t*R + r - drop, h*P + p, w*Q + q, c] = x[b,t,h,w,k] + shortcut[b,t,h,w, k mod S] with k = ((c*R + r)*P + p)*Q + q.
// x [B,T,H,W,C*R*P*Q], shortcut [B,T,H,W,S] or none, S divides C*R*P*Q -> [B,T*R - drop,H*P,W*Q,C]
Tensor depth_to_space(const Tensor& x, const Tensor& shortcut, const DepthToSpaceOptions& options);

struct DepthToSpaceArgs {
    const Tensor &x, &shortcut;
    const DepthToSpaceOptions& options;
    Tensor& y;
};

}  // namespace sana
