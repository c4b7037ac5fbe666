// What convolutions, resampling and the text encoder's ops record on the tape.
#include "ops/gradients.h"
#include "ops/kernels.h"

namespace sana {

namespace {

// [O,U,V,S,C] -> [C,U,V,S,O] with the taps in reverse: the kernel of the convolution that carries gradients back.
Tensor flipped(const Tensor& weight) {
    int64_t out = weight.dim(0), taps = weight.dim(1) * weight.dim(2) * weight.dim(3), in = weight.dim(4);
    Tensor y = empty({in, weight.dim(1), weight.dim(2), weight.dim(3), out}, weight.dtype(), weight.device());
    const std::byte* last =
        static_cast<const std::byte*>(weight.raw()) + (taps - 1) * in * size_of(weight.dtype());
    launch("conv3d", &Kernels::strided_copy, weight.device(),
           StridedCopyArgs{{in, taps, out},
                           last,
                           {1, -in, taps * in},
                           y.raw(),
                           {taps * out, out, 1},
                           size_of(weight.dtype()),
                           weight.device()});
    return y;
}

// dy with stride - 1 zeros between neighbours.
Tensor spread(const Tensor& dy, const std::array<int64_t, 3>& stride) {
    if (stride == std::array<int64_t, 3>{1, 1, 1}) return dy;
    Shape shape = dy.shape();
    for (int i = 0; i < 3; ++i) shape[i + 1] = (dy.dim(i + 1) - 1) * stride[static_cast<size_t>(i)] + 1;
    Tensor out = zeros(shape, dy.dtype(), dy.device());
    int64_t pixel = dy.cols(), row = dy.dim(3) * pixel, frame = dy.dim(2) * row, clip = dy.dim(1) * frame;
    int64_t to_row = shape[3] * pixel, to_frame = shape[2] * to_row, to_clip = shape[1] * to_frame;
    launch("conv3d", &Kernels::strided_copy, dy.device(),
           StridedCopyArgs{dy.shape(),
                           dy.raw(),
                           {clip, frame, row, pixel, 1},
                           out.raw(),
                           {to_clip, to_frame * stride[0], to_row * stride[1], pixel * stride[2], 1},
                           size_of(dy.dtype()),
                           dy.device()});
    return out;
}

// The gradients of past and x: dy convolved with the flipped kernel. Zeros that padding added need no gradient: where
// nothing but them surrounds x, the convolution leaves them out at once.
void conv3d_input_grad(Tape& tape, const Tensor& x, const Tensor& weight, const Conv3dOptions& o,
                       const Tensor& dy) {
    int64_t past = o.past.defined() ? o.past.dim(1) : 0;
    bool zeros_only = o.space_mode == PadMode::zeros &&
                      (o.time_mode == PadMode::zeros || o.pad_before[0] + o.pad_after[0] == 0) &&
                      !tape.needs(o.past);
    Conv3dOptions back;
    bool direct = zeros_only;
    for (size_t i = 0; i < 3; ++i) {
        int axis = static_cast<int>(i) + 1;
        int64_t kernel = weight.dim(axis), own_past = i == 0 ? past : 0;
        int64_t padded = x.dim(axis) + own_past + o.pad_before[i] + o.pad_after[i];
        back.pad_before[i] = kernel - 1;
        back.pad_after[i] = padded - (dy.dim(axis) - 1) * o.stride[i] - 1;
        if (zeros_only) {
            back.pad_before[i] -= o.pad_before[i] + own_past;
            back.pad_after[i] -= o.pad_after[i];
            direct = direct && back.pad_before[i] >= 0 && back.pad_after[i] >= 0;
        }
    }
    if (zeros_only && !direct) {  // more padding than the kernel is long
        for (size_t i = 0; i < 3; ++i) {
            back.pad_before[i] += o.pad_before[i] + (i == 0 ? past : 0);
            back.pad_after[i] += o.pad_after[i];
        }
    }
    Tensor dp = conv3d(spread(dy, o.stride), flipped(weight), {}, back);
    if (direct) return tape.accumulate(x, dp);
    Tensor dx = empty(x.shape(), x.dtype(), x.device()), dpast;
    if (o.past.defined()) dpast = empty(o.past.shape(), x.dtype(), x.device());
    launch_gradient("conv3d", &GradientKernels::unpad, x.device(), UnpadArgs{dp, o, dpast, dx});
    tape.accumulate(o.past, dpast);
    tape.accumulate(x, dx);
}

}  // namespace

void record_conv3d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv3dOptions& options,
                   const Tensor& y) {
    record({&x, &weight, &bias, &options.past, &options.residual}, y, [=](Tape& tape, const Tensor& dy) {
        tape.accumulate(options.residual, dy);
        if (tape.needs(bias)) {
            Tensor sum = group_sum(dy.reshape({1, dy.rows(), dy.cols()}), {}, 1);
            tape.accumulate(bias, sum.reshape(bias.shape()));
        }
        if (tape.needs(weight)) {
            Tensor dweight = empty(weight.shape(), weight.dtype(), weight.device());
            launch_gradient("conv3d", &GradientKernels::conv3d_weight, x.device(),
                            Conv3dWeightGradArgs{x, dy, options, dweight});
            tape.accumulate(weight, dweight);
        }
        if (tape.needs(x) || tape.needs(options.past)) conv3d_input_grad(tape, x, weight, options, dy);
    });
}

void record_upsample_nearest(const Tensor& x, const Tensor& y) {
    record({&x}, y, [=](Tape& tape, const Tensor& dy) {
        Tensor dx = empty(x.shape(), x.dtype(), x.device());
        launch_gradient("upsample_nearest", &GradientKernels::sum_pixels, x.device(),
                        SumPixelsArgs{dy, 1.0f, dx});
        tape.accumulate(x, dx);
    });
}

// The same values back where they came from; a channel of the shortcut went to K / S places.
void record_depth_to_space(const Tensor& x, const Tensor& shortcut, const DepthToSpaceOptions& options,
                           const Tensor& y) {
    record({&x, &shortcut}, y, [=](Tape& tape, const Tensor& dy) {
        const auto& [R, P, Q] = options.stride;
        Tensor all = dy;
        if (options.drop > 0) {
            Shape front = dy.shape();
            front[1] = options.drop;
            all = concat({zeros(front, dy.dtype(), dy.device()), dy}, 1);
        }
        all = all.reshape({x.dim(0), x.dim(1), R, x.dim(2), P, x.dim(3), Q, dy.cols()});
        std::vector<int> axes{0, 1, 3, 5, 7, 2, 4, 6};
        if (options.rows_fastest) std::swap(axes[6], axes[7]);
        Tensor dx = permute(all, axes).reshape(x.shape());
        tape.accumulate(x, dx);
        if (!tape.needs(shortcut)) return;
        for (int64_t start = 0; start < x.cols(); start += shortcut.cols())
            tape.accumulate(shortcut, dx.cols_slice(start, shortcut.cols()).contiguous());
    });
}

Tensor mean_pixels(const Tensor& x) {
    check(x.rank() == 5 && x.dense() && x.dim(2) % 2 == 0 && x.dim(3) % 2 == 0, "mean_pixels: ", x,
          " must be [B,T,2H,2W,C]");
    Tensor y = empty({x.dim(0), x.dim(1), x.dim(2) / 2, x.dim(3) / 2, x.dim(4)}, x.dtype(), x.device());
    launch_gradient("mean_pixels", &GradientKernels::sum_pixels, x.device(), SumPixelsArgs{x, 0.25f, y});
    return record({&x}, y, [=](Tape& tape, const Tensor& dy) {
        tape.accumulate(x, upsample_nearest(combine({{0.25, dy}})));
    });
}

// Turning back is turning by the negative angle.
void record_rotate_half(const Tensor& x, const Rope& rope, int64_t heads, const Tensor& y) {
    record({&x}, y, [=](Tape& tape, const Tensor& dy) {
        tape.accumulate(x, rotate_half(dy, {rope.cos, combine({{-1, rope.sin}})}, heads));
    });
}

void record_gelu_multiply(const Tensor& gate, const Tensor& up, const Tensor& y) {
    record({&gate, &up}, y, [=](Tape& tape, const Tensor& dy) {
        if (tape.needs(up)) tape.accumulate(up, gelu_multiply(gate, dy));
        if (!tape.needs(gate)) return;
        // A group a row makes group_scale a product element by element.
        Shape rows{1, dy.rows(), dy.cols()};
        Tensor slope = group_scale(dy.reshape(rows), up.contiguous().reshape(rows)).reshape(dy.shape());
        Tensor dgate = empty(dy.shape(), dy.dtype(), dy.device());
        launch_gradient("gelu_multiply", &GradientKernels::activate, dy.device(),
                        ActivateGradArgs{gate, slope, Activation::gelu_tanh, dgate});
        tape.accumulate(gate, dgate);
    });
}

void record_clamp(const Tensor& x, float low, float high, const Tensor& y) {
    record({&x}, y, [=](Tape& tape, const Tensor& dy) {
        Tensor dx = empty(x.shape(), x.dtype(), x.device());
        launch_gradient("clamp", &GradientKernels::clamp, x.device(), ClampGradArgs{x, dy, low, high, dx});
        tape.accumulate(x, dx);
    });
}

void record_group_mean(const Tensor& x, int64_t group, const Tensor& y) {
    record({&x}, y, [=](Tape& tape, const Tensor& dy) {
        Tensor dx = empty(x.shape(), x.dtype(), x.device());
        launch_gradient("group_mean", &GradientKernels::group_mean, x.device(),
                        GroupMeanGradArgs{dy, group, dx});
        tape.accumulate(x, dx);
    });
}

void record_embedding(const Tensor& ids, const Tensor& table, float scale, const Tensor& y) {
    record({&table}, y, [=](Tape& tape, const Tensor& dy) {
        Tensor dtable = empty(table.shape(), table.dtype(), table.device());
        launch_gradient("embedding", &GradientKernels::embedding, table.device(),
                        EmbeddingGradArgs{ids, dy, scale, dtable});
        tape.accumulate(table, dtable);
    });
}

}  // namespace sana
