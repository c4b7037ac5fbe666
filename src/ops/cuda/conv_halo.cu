// conv_halo: the maps for the copy engine, the shape of the tiles, and the launch of the kernel in device/conv_halo.cuh.
#include "ops/cuda/conv_halo.h"

#include "core/cuda/device.h"
#include "ops/cuda/device/conv_halo.cuh"
#include "ops/cuda/hopper.h"

namespace sana::cuda {

namespace {

using halo::Ends;
using halo::Grid;

int tiles_of(int64_t size, int box) { return static_cast<int>((size + box - 1) / box); }

// The shape of a tile that wastes least; with equal waste the one whose halo is smallest.
void choose_box(const HaloConv& p, Grid& g) {
    int64_t best = INT64_MAX;
    for (int log : {1, 2, 0}) {
        int columns = 8 << log, rows = halo::kPositions / columns;
        int64_t covered = int64_t{tiles_of(p.y_size[0], columns)} * tiles_of(p.y_size[1], rows);
        if (covered >= best) continue;
        best = covered;
        g.box[0] = columns;
        g.box[1] = rows;
        g.box_log = log;
    }
    g.tiles[0] = tiles_of(p.y_size[0], g.box[0]);
    g.tiles[1] = tiles_of(p.y_size[1], g.box[1]);
}

// Columns of a tile: few empty ones, and rather many.
int64_t tile_width(const HaloConv& p) {
    if (p.width <= 8) return 8;
    if (p.width <= 32) return 32;
    if (p.channels % 64 != 0) return p.width <= 96 ? 96 : 192;
    if (p.width <= 64) return 64;
    if (p.width <= 96) return 96;
    auto padded = [&](int64_t tile) { return (p.width + tile - 1) / tile * tile; };
    return padded(128) <= padded(192) ? 128 : 192;
}

template <int N, int Span, bool Row>
void launch(const HaloConv& p, Grid g, const Ends& e) {
    using L = halo::Layout<N, Span, Row>;
    g.pitch = g.box[0] + g.taps[0] - 1;
    int lines = g.box[1] + g.taps[1] - 1;
    g.box_bytes = g.pitch * lines * Span * 2;
    g.chunks = static_cast<int>(p.channels) / Span;
    g.scale = static_cast<int>(p.scale);
    g.column_tiles = tiles_of(p.width, N) * g.scale * g.scale;
    int64_t c = p.channels, plane = c * p.x_size[0] * p.x_size[1];
    int x_box[5] = {Span, g.pitch, lines, 1, 1};
    auto video = [&](const void* data, int64_t frames) {
        int64_t sizes[5] = {c, p.x_size[0], p.x_size[1], frames, p.x_size[3]};
        int64_t strides[5] = {1, c, c * p.x_size[0], plane, plane * frames};
        return tensor_map(data, 5, sizes, strides, x_box);
    };
    CUtensorMap x = video(p.x, p.x_size[2]), past = p.past != nullptr ? video(p.past, p.past_size) : x;
    int64_t depth = p.taps[0] * p.taps[1] * p.taps[2] * c, w_sizes[2] = {depth, p.width * p.scale * p.scale},
            w_strides[2] = {1, depth};
    int w_box[2] = {Span, L::kWide ? N / 2 : N};
    CUtensorMap w = tensor_map(p.w, 2, w_sizes, w_strides, w_box);
    auto kernel = halo::conv_halo_kernel<__nv_bfloat16, N, Span, Row>;
    CHECK_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kBytes));
    int clusters = std::min(multiprocessors(p.device) / 2, (g.positions + 1) / 2 * g.column_tiles);
    kernel<<<static_cast<unsigned>(clusters * 2), halo::kThreads, L::kBytes, stream_of(p.device)>>>(x, past,
                                                                                                    w, g, e);
    check_launch("conv_halo_kernel", p.device);
}

}  // namespace

bool conv_halo(const HaloConv& p) {
    bool narrow = p.width <= 8;
    if (!is_hopper(p.device) || p.channels % 32 != 0 || p.width > INT32_MAX / 4) return false;
    if (p.taps[0] > 3 || p.taps[1] > 3 || p.taps[0] * p.taps[1] == 1) return false;
    using Pair = std::array<int64_t, 2>;
    if (p.reflect &&
        (Pair{p.taps[0], p.taps[1]} != Pair{3, 3} || Pair{p.before[0], p.before[1]} != Pair{1, 1}))
        return false;
    if (narrow ? p.residual != nullptr : p.width % 8 != 0) return false;
    for (const void* data : {p.x, p.past, p.w}) {
        if (!aligned(data, 0)) return false;
    }
    for (const void* data : {static_cast<const void*>(p.y), p.bias, p.residual}) {
        if (!narrow && !aligned(data, 0)) return false;
    }
    int64_t tile = tile_width(p);
    if (p.scale > 1 && p.width % tile != 0) return false;
    if (p.channels % 64 != 0 && tile <= 96 && p.taps[0] != 3)
        return false;  // the taps of a row come together
    Grid g{};
    choose_box(p, g);
    int64_t positions = int64_t{g.tiles[0]} * g.tiles[1] * p.y_size[2] * p.y_size[3];
    if (positions > INT32_MAX / halo::kPositions / 4) return false;
    for (size_t i = 0; i < 4; ++i) g.size[i] = static_cast<int>(p.y_size[i]);
    for (size_t i = 0; i < 3; ++i) {
        g.taps[i] = static_cast<int>(p.taps[i]);
        g.before[i] = static_cast<int>(p.before[i]);
    }
    g.past_size = static_cast<int>(p.past_size);
    g.first_frame = p.repeat_frames ? 0 : INT32_MIN;
    g.last_frame = p.repeat_frames ? static_cast<int>(p.past_size + p.x_size[2]) - 1 : INT32_MAX;
    g.channels = static_cast<int>(p.channels);
    g.reflect = p.reflect;
    g.positions = static_cast<int>(positions);
    g.group = multiprocessors(p.device);
    Ends e{p.y, p.bias, p.residual, static_cast<int>(p.width)};
    if (p.channels % 64 != 0) {
        if (tile == 8) {
            launch<8, 32, true>(p, g, e);
        } else if (tile == 32) {
            launch<32, 32, true>(p, g, e);
        } else if (tile == 96) {
            launch<96, 32, true>(p, g, e);
        } else {
            launch<192, 32, false>(p, g, e);
        }
    } else {
        switch (tile) {
            case 8: launch<8, 64, false>(p, g, e); break;
            case 32: launch<32, 64, false>(p, g, e); break;
            case 64: launch<64, 64, false>(p, g, e); break;
            case 96: launch<96, 64, false>(p, g, e); break;
            case 128: launch<128, 64, false>(p, g, e); break;
            default: launch<192, 64, false>(p, g, e);
        }
    }
    return true;
}

}  // namespace sana::cuda
