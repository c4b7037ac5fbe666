// conv3d: oneDNN for fp32 and bf16 where the build has it, else one matrix product a kernel tap over gathered rows.
#include "ops/conv.h"

#include <cstring>
#include <vector>

#include "core/parallel.h"
#include "ops/cpu/conv_dnnl.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/simd.h"

namespace sana::cpu {

namespace {

// Index into an axis of `size` for a position that padding moved outside; -1 stands for zero.
int64_t source_index(int64_t position, int64_t size, PadMode mode) {
    if (position >= 0 && position < size) return position;
    switch (mode) {
        case PadMode::zeros: return -1;
        case PadMode::replicate: return position < 0 ? 0 : size - 1;
        case PadMode::reflect: return position < 0 ? -position : 2 * (size - 1) - position;
    }
    return -1;
}

// past ++ x with all padding written out: [B, padded T, padded H, padded W, C].
Tensor padded_input(const Conv3dArgs& args) {
    const Conv3dOptions& o = args.options;
    int64_t past = o.past.defined() ? o.past.dim(1) : 0, frames = args.x.dim(1) + past;
    int64_t height = args.x.dim(2), width = args.x.dim(3), channels = args.x.dim(4);
    Tensor out =
        empty({args.x.dim(0), frames + o.pad_before[0] + o.pad_after[0],
               height + o.pad_before[1] + o.pad_after[1], width + o.pad_before[2] + o.pad_after[2], channels},
              args.x.dtype());
    size_t pixel = static_cast<size_t>(channels * size_of(args.x.dtype()));
    parallel_for(out.dim(0) * out.dim(1) * out.dim(2), out.dim(3) * channels, [&](int64_t r) {
        int64_t h = source_index(r % out.dim(2) - o.pad_before[1], height, o.space_mode);
        int64_t t = source_index(r / out.dim(2) % out.dim(1) - o.pad_before[0], frames, o.time_mode);
        int64_t b = r / out.dim(2) / out.dim(1);
        std::byte* to = static_cast<std::byte*>(out.raw()) + static_cast<size_t>(r * out.dim(3)) * pixel;
        const std::byte* row = nullptr;
        if (t >= 0 && h >= 0) {
            const Tensor& from = t < past ? o.past : args.x;
            int64_t frame = b * from.dim(1) + (t < past ? t : t - past);
            row = static_cast<const std::byte*>(from.raw()) +
                  static_cast<size_t>((frame * height + h) * width) * pixel;
        }
        for (int64_t i = 0; i < out.dim(3);) {
            int64_t w = source_index(i - o.pad_before[2], width, o.space_mode);
            bool inside = row != nullptr && i == o.pad_before[2];
            size_t run = inside ? static_cast<size_t>(width) : 1;  // the middle of the row in one piece
            if (row == nullptr || w < 0) {
                std::memset(to + static_cast<size_t>(i) * pixel, 0, pixel);
            } else {
                std::memcpy(to + static_cast<size_t>(i) * pixel, row + static_cast<size_t>(w) * pixel,
                            run * pixel);
            }
            i += static_cast<int64_t>(run);
        }
    });
    return out;
}

// y rows (one output row of pixels at a time) = sum over taps; x is padded, so every tap exists.
template <class C>
void by_taps(const Conv3dArgs& args, const Tensor& x, const Tensor& weight, C* sums) {
    int64_t kt = weight.dim(1), kh = weight.dim(2), kw = weight.dim(3), channels = weight.dim(4),
            out = weight.dim(0);
    int64_t frames = args.y.dim(1), height = args.y.dim(2), width = args.y.dim(3);
    int64_t taps = kt * kh * kw;
    const auto& stride = args.options.stride;
    for (int64_t r = 0; r < args.y.dim(0) * frames * height; ++r) {
        int64_t h = r % height * stride[1], t = r / height % frames * stride[0], b = r / height / frames;
        for (int64_t tap = 0; tap < taps; ++tap) {
            int64_t dw = tap % kw, dh = tap / kw % kh, dt = tap / kw / kh;
            const C* from =
                x.data<C>() + (((b * x.dim(1) + t + dt) * x.dim(2) + h + dh) * x.dim(3) + dw) * channels;
            gemm<C>(width, out, channels, from, stride[2] * channels, weight.data<C>() + tap * channels,
                    taps * channels, sums + r * width * out, out, tap > 0);
        }
    }
}

template <class T>
void finish(const Conv3dArgs& args, const compute_t<T>* sums) {
    using C = compute_t<T>;
    int64_t cols = args.y.cols();
    std::vector<C> bias(static_cast<size_t>(cols), C(0));
    if (args.bias.defined()) to_compute(args.bias.data<T>(), bias.data(), cols);
    parallel_for(args.y.rows(), cols, [&](int64_t r) {
        T* y = args.y.data<T>() + r * cols;
        const T* residual =
            args.options.residual.defined() ? args.options.residual.data<T>() + r * cols : nullptr;
        for (int64_t i = 0; i < cols; ++i) {
            C value = sums[r * cols + i] + bias[static_cast<size_t>(i)];
            y[i] = T(residual == nullptr ? value : value + static_cast<C>(residual[i]));
        }
    });
}

}  // namespace

void conv3d(const Conv3dArgs& args) {
    const Conv3dOptions& o = args.options;
    if (args.y.numel() == 0) return;
    if (o.upsample) {
        auto doubled = [](const Tensor& x) {
            if (!x.defined()) return x;
            Tensor y = empty({x.dim(0), x.dim(1), 2 * x.dim(2), 2 * x.dim(3), x.dim(4)}, x.dtype());
            upsample_nearest({x, y});
            return y;
        };
        Conv3dOptions plain = o;
        plain.upsample = false;
        plain.past = doubled(o.past);
        Tensor x = doubled(args.x);
        return conv3d({x, args.weight, args.bias, plain, args.y});
    }
    if (conv3d_uses_dnnl(args.x.dtype())) {
        bool zeros = o.space_mode == PadMode::zeros &&
                     (o.time_mode == PadMode::zeros || o.pad_before[0] + o.pad_after[0] == 0);
        if (zeros && !o.past.defined()) {
            conv3d_dnnl(args, args.x, o.pad_before, o.pad_after);
        } else if (o.space_mode == PadMode::zeros) {  // only time has to be written out
            Conv3dOptions time = o;
            time.pad_before = {o.pad_before[0], 0, 0};
            time.pad_after = {o.pad_after[0], 0, 0};
            Tensor x = padded_input({args.x, args.weight, args.bias, time, args.y});
            conv3d_dnnl(args, x, {0, o.pad_before[1], o.pad_before[2]}, {0, o.pad_after[1], o.pad_after[2]});
        } else {
            conv3d_dnnl(args, padded_input(args), {0, 0, 0}, {0, 0, 0});
        }
        return;
    }
    dispatch_float(args.x.dtype(), [&]<class T>() {
        using C = compute_t<T>;
        Tensor x = padded_input(args).to(dtype_of<C>()), weight = args.weight.to(dtype_of<C>());
        Tensor sums = empty(args.y.shape(), dtype_of<C>());
        by_taps<C>(args, x, weight, sums.data<C>());
        finish<T>(args, sums.data<C>());
    });
}

}  // namespace sana::cpu
