// implicit_gemm: the maps for the copy engine, the tile sizes, and the launch of the kernel in device/implicit_gemm.cuh.
#include "ops/cuda/implicit_gemm.h"

#include "core/cuda/device.h"
#include "ops/cuda/device/element.cuh"
#include "ops/cuda/device/implicit_gemm.cuh"
#include "ops/cuda/hopper.h"

namespace sana::cuda {

namespace {

using window::Ends;
using window::Grid;
using window::kRows;

// The shape of a tile on axes 1 and 2 that wastes least.
void choose_box(const ImplicitGemm& p, Grid& g) {
    int64_t best = INT64_MAX;
    bool flat = p.y_size[1] == 1 && p.taps[1] == 1;
    for (int log : {4, 5, 3, 6, 7, 2, 1, 0}) {
        if (flat && log != 7) continue;
        int64_t a = int64_t{1} << log, b = kRows / a;
        int64_t covered = (p.y_size[0] + a - 1) / a * a * ((p.y_size[1] + b - 1) / b * b);
        if (covered >= best) continue;
        best = covered;
        g.box[0] = static_cast<int>(a);
        g.box[1] = static_cast<int>(b);
        g.box_log = log;
    }
}

template <class T, int N, int Span, int Sub>
void launch_tiles(const ImplicitGemm& p, Grid g, const Ends& e) {
    using L = window::Layout<N, Span, Sub>;
    g.chunks = static_cast<int>((p.channels + Span * Sub - 1) / (Span * Sub));
    g.column_tiles = static_cast<int>((p.width + N - 1) / N);
    int tiles = g.x_tiles[0] * g.x_tiles[1] * g.x_tiles[2] * g.x_tiles[3];
    g.row_clusters = (tiles + 1) / 2;
    const auto& s = p.x_size;
    int64_t x_sizes[5] = {p.channels, s[0], s[1], s[2], s[3]};
    int64_t x_strides[5] = {1, p.x_stride[0], p.x_stride[1], p.x_stride[2], p.x_stride[3]};
    int x_box[5] = {Span, g.box[0], g.box[1], 1, 1};
    CUtensorMap x = tensor_map(p.x, 5, x_sizes, x_strides, x_box), past = x;
    if (p.past != nullptr) {
        int64_t sizes[5] = {p.channels, s[0], s[1], p.past_size, s[3]};
        int64_t strides[5] = {1, p.channels, p.channels * s[0], p.channels * s[0] * s[1],
                              p.channels * s[0] * s[1] * p.past_size};
        past = tensor_map(p.past, 5, sizes, strides, x_box);
    }
    int64_t depth = p.taps[0] * p.taps[1] * p.taps[2] * p.channels,
            w_sizes[2] = {depth, p.w_rows > 0 ? p.w_rows : p.width}, w_strides[2] = {1, depth};
    int w_box[2] = {Span, N / 2};
    CUtensorMap w = tensor_map(p.w, 2, w_sizes, w_strides, w_box);
    auto kernel = window::implicit_gemm_kernel<T, N, Span, Sub>;
    CHECK_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kBytes));
    int clusters = std::min(multiprocessors(p.device) / 2, g.row_clusters * g.column_tiles);
    kernel<<<static_cast<unsigned>(clusters * 2), window::kThreads, L::kBytes, stream_of(p.device)>>>(
        x, past, w, g, e);
    check_launch("implicit_gemm_kernel", p.device);
}

// Channels in steps of 64.
template <class T>
void by_width(const ImplicitGemm& p, const Grid& g, const Ends& e) {
    int64_t n = p.width;
    if (n <= 32) return launch_tiles<T, 32, 64, 1>(p, g, e);
    if (n <= 64) return launch_tiles<T, 64, 64, 1>(p, g, e);
    if (n <= 96) return launch_tiles<T, 96, 64, 1>(p, g, e);
    if (n <= 128) return launch_tiles<T, 128, 64, 1>(p, g, e);
    // The widest tile of those that leave fewest columns empty.
    auto padded = [&](int64_t tile) { return (n + tile - 1) / tile * tile; };
    if (padded(256) <= padded(224) && padded(256) <= padded(192)) return launch_tiles<T, 256, 64, 1>(p, g, e);
    if (padded(224) <= padded(192)) return launch_tiles<T, 224, 64, 1>(p, g, e);
    launch_tiles<T, 192, 64, 1>(p, g, e);
}

// Results of few columns (the three colours): 8 columns are made, the weight's missing rows being zeros outside its map,
// and those that count are copied.
bool narrow(const ImplicitGemm& p) {
    if (p.identity != nullptr || p.gate != nullptr || p.residual != nullptr) return false;
    int64_t wide = (p.width + 7) / 8 * 8, rows = p.y_size[0] * p.y_size[1] * p.y_size[2] * p.y_size[3];
    Tensor y = empty({rows, wide}, p.dtype, p.device), bias;
    ImplicitGemm q = p;
    if (p.bias != nullptr) {
        bias = zeros({wide}, p.dtype, p.device);
        copy_rows({const_cast<void*>(p.bias), p.width * 2, p.device}, {bias.raw(), p.width * 2, p.device},
                  p.width * 2, 1);
        q.bias = bias.raw();
    }
    q.width = wide;
    q.w_rows = p.width;
    q.y = y.raw();
    q.y_stride = wide;
    if (!implicit_gemm(q)) return false;
    copy_rows({y.raw(), wide * 2, p.device}, {p.y, p.y_stride * 2, p.device}, p.width * 2, rows);
    return true;
}

}  // namespace

bool implicit_gemm(const ImplicitGemm& p) {
    if (p.dtype != DType::BF16 || !is_hopper(p.device) || p.channels % 8 != 0) return false;
    if (p.y_size[0] * p.y_size[1] * p.y_size[2] * p.y_size[3] > INT32_MAX - 256 * 1024) return false;
    if (!aligned(p.x, p.x_stride[0]) || !aligned(p.past, 0) || !aligned(p.w, 0)) return false;
    for (int64_t stride : p.x_stride) {
        if (stride % 8 != 0) return false;
    }
    if (p.width % 8 != 0) return narrow(p);
    if (!aligned(p.y, p.y_stride) || !aligned(p.bias, 0) || !aligned(p.identity, p.identity_stride) ||
        !aligned(p.gate, p.gate_stride) || !aligned(p.residual, p.residual_stride)) {
        return false;
    }
    Grid g{};
    choose_box(p, g);
    for (size_t i = 0; i < 4; ++i) {
        int64_t box = i < 2 ? g.box[i] : 1;
        g.x_tiles[i] = static_cast<int>((p.y_size[i] + box - 1) / box);
        g.y_size[i] = static_cast<int>(p.y_size[i]);
    }
    for (size_t i = 0; i < 3; ++i) {
        g.taps[i] = static_cast<int>(p.taps[i]);
        g.before[i] = static_cast<int>(p.before[i]);
    }
    g.tap_step = static_cast<int>(p.tap_step);
    g.past_size = static_cast<int>(p.past_size);
    g.channels = static_cast<int>(p.channels);
    g.tokens = static_cast<int>(p.tokens);
    g.groups = static_cast<int>(p.groups);
    g.per_group = static_cast<int>(std::max<int64_t>(1, p.tokens / p.groups));
    Ends e{p.y,
           p.bias,
           p.identity,
           p.gate,
           p.residual,
           p.y_stride,
           p.identity_stride,
           p.gate_stride,
           p.residual_stride,
           static_cast<int>(p.width),
           p.activation};
    using T = bf16_t;
    if (p.channels % 64 == 0 || p.channels > 256) {
        by_width<T>(p, g, e);
    } else if (p.channels == 96 && p.width <= 32) {
        launch_tiles<T, 32, 32, 3>(p, g, e);
    } else if (p.channels == 96 && p.width <= 96) {
        launch_tiles<T, 96, 32, 3>(p, g, e);
    } else if (p.width <= 64) {
        launch_tiles<T, 64, 32, 1>(p, g, e);
    } else {
        launch_tiles<T, 192, 32, 1>(p, g, e);
    }
    return true;
}

}  // namespace sana::cuda
