// Derivative kernels, in fp32 and fp64. Loops over rows run in parallel; sums over rows run over channels in parallel, so
// that results do not depend on the number of threads.
#include "ops/gradients.h"

#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "ops/cpu/gradients.h"
#include "ops/cpu/simd.h"

namespace sana::cpu {

namespace {

template <class T>
const T* row_of(const Tensor& x, int64_t r) {
    return x.data<T>() + r * x.row_stride();
}

template <class T>
T activation_slope(Activation activation, T x) {
    switch (activation) {
        case Activation::none: return 1;
        case Activation::relu: return x > 0 ? T(1) : T(0);
        case Activation::silu: {
            T s = sigmoid_(x);
            return s * (1 + x * (1 - s));
        }
        case Activation::gelu_tanh: {
            constexpr double kRoot = 0.7978845608028654;
            T inner = T(kRoot) * (x + T(0.044715) * x * x * x), t = std::tanh(inner);
            return (1 + t) / 2 + x * (1 - t * t) / 2 * T(kRoot) * (1 + T(3 * 0.044715) * x * x);
        }
    }
    return 1;
}

}  // namespace

void group_sum(const GroupSumArgs& args) {
    dispatch_fp32_fp64("group_sum", args.a.dtype(), [&]<class T>() {
        int64_t tokens = args.a.dim(1), groups = args.y.dim(1), cols = args.a.dim(2), rows = tokens / groups;
        constexpr int64_t kBlock = 64;
        int64_t blocks = (cols + kBlock - 1) / kBlock;
        parallel_for(args.a.dim(0) * groups * blocks, rows * kBlock, [&](int64_t task) {
            int64_t group = task / blocks, start = task % blocks * kBlock, n = std::min(kBlock, cols - start);
            // Partial sums of 256 rows keep the digits of long sums.
            T total[kBlock] = {}, part[kBlock] = {};
            for (int64_t i = 0; i < rows; ++i) {
                int64_t row = group / groups * tokens + group % groups * rows + i;
                const T* a = row_of<T>(args.a, row) + start;
                const T* b = args.b.defined() ? row_of<T>(args.b, row) + start : nullptr;
                for (int64_t c = 0; c < n; ++c) part[c] += b == nullptr ? a[c] : a[c] * b[c];
                if (i % 256 == 255 || i + 1 == rows) {
                    for (int64_t c = 0; c < n; ++c) {
                        total[c] += part[c];
                        part[c] = 0;
                    }
                }
            }
            std::copy(total, total + n, args.y.data<T>() + group * cols + start);
        });
    });
}

void group_scale(const GroupScaleArgs& args) {
    dispatch_fp32_fp64("group_scale", args.x.dtype(), [&]<class T>() {
        int64_t tokens = args.x.dim(1), groups = args.scale.dim(1), cols = args.x.dim(2);
        parallel_for(args.x.rows(), cols, [&](int64_t r) {
            const T* x = row_of<T>(args.x, r);
            const T* s = row_of<T>(args.scale, r / tokens * groups + r % tokens / (tokens / groups));
            T* y = args.y.data<T>() + r * cols;
            for (int64_t c = 0; c < cols; ++c) y[c] = x[c] * s[c];
        });
    });
}

void scale_all(const ScaleAllArgs& args) {
    dispatch_fp32_fp64("scale_all", args.x.dtype(), [&]<class T>() {
        T factor = args.factor.data<T>()[0], *x = args.x.data<T>();
        if (factor == 1) return;
        constexpr int64_t kPart = 4096;
        int64_t n = args.x.numel();
        parallel_for((n + kPart - 1) / kPart, kPart, [&](int64_t part) {
            for (int64_t i = part * kPart; i < std::min(n, (part + 1) * kPart); ++i) x[i] *= factor;
        });
    });
}

void activate_grad(const ActivateGradArgs& args) {
    dispatch_fp32_fp64("activate", args.x.dtype(), [&]<class T>() {
        int64_t cols = args.x.cols();
        parallel_for(args.x.rows(), cols * 20, [&](int64_t r) {
            const T* x = row_of<T>(args.x, r);
            const T* dy = row_of<T>(args.dy, r);
            T* dx = args.dx.data<T>() + r * cols;
            for (int64_t c = 0; c < cols; ++c) dx[c] = dy[c] * activation_slope(args.activation, x[c]);
        });
    });
}

void layer_norm_modulate_grad(const LayerNormModulateGradArgs& args) {
    dispatch_fp32_fp64("layer_norm_modulate", args.x.dtype(), [&]<class T>() {
        int64_t tokens = args.x.dim(1), groups = args.scale.dim(1), cols = args.x.cols();
        parallel_for(args.x.rows(), cols * 8, [&](int64_t r) {
            const T* x = row_of<T>(args.x, r);
            const T* dy = row_of<T>(args.dy, r);
            const T* scale = row_of<T>(args.scale, r / tokens * groups + r % tokens / (tokens / groups));
            T* normal = args.normal.data<T>() + r * cols;
            T* dx = args.dx.data<T>() + r * cols;
            T mean = 0, variance = 0, sum = 0, product = 0;
            for (int64_t c = 0; c < cols; ++c) mean += x[c] / static_cast<T>(cols);
            for (int64_t c = 0; c < cols; ++c)
                variance += (x[c] - mean) * (x[c] - mean) / static_cast<T>(cols);
            T inverse = 1 / std::sqrt(variance + static_cast<T>(args.eps));
            for (int64_t c = 0; c < cols; ++c) {
                normal[c] = (x[c] - mean) * inverse;
                T g = dy[c] * (1 + scale[c]);
                sum += g;
                product += g * normal[c];
            }
            sum /= static_cast<T>(cols);
            product /= static_cast<T>(cols);
            for (int64_t c = 0; c < cols; ++c) {
                dx[c] = inverse * (dy[c] * (1 + scale[c]) - sum - normal[c] * product);
            }
        });
    });
}

void rms_norm_grad(const RmsNormGradArgs& args) {
    const RmsNormOptions& o = args.options;
    dispatch_fp32_fp64("rms_norm", args.x.dtype(), [&]<class T>() {
        int64_t cols = args.x.cols();
        std::vector<T> factor(static_cast<size_t>(cols), T(1));
        for (int64_t c = 0; args.weight.defined() && c < cols; ++c) {
            factor[static_cast<size_t>(c)] = args.weight.data<T>()[c] + static_cast<T>(o.weight_offset);
        }
        Tensor shares = empty(args.x.shape(), args.x.dtype());  // of every row in the gradient of the weight
        parallel_for(args.x.rows(), cols * 20, [&](int64_t r) {
            const T* x = row_of<T>(args.x, r);
            const T* dy = row_of<T>(args.dy, r);
            T* dx = args.dx.data<T>() + r * cols;
            T* rows = shares.data<T>() + r * cols;
            T squares = 0, product = 0;
            for (int64_t c = 0; c < cols; ++c) squares += x[c] * x[c];
            bool floored = o.floor > 0 && std::sqrt(squares) <= static_cast<T>(o.floor);
            T scale = o.floor > 0 ? std::sqrt(static_cast<T>(cols)) /
                                        std::max(std::sqrt(squares), static_cast<T>(o.floor))
                                  : 1 / std::sqrt(squares / static_cast<T>(cols) + static_cast<T>(o.eps));
            for (int64_t c = 0; c < cols; ++c) {
                T normal = x[c] * scale, f = factor[static_cast<size_t>(c)];
                T g = dy[c] * activation_slope(o.activation, normal * f);
                rows[c] = g * normal;
                dx[c] = g * f;
                product += g * f * normal;
            }
            product = floored ? T(0) : product / static_cast<T>(cols);
            for (int64_t c = 0; c < cols; ++c) dx[c] = scale * (dx[c] - x[c] * scale * product);
        });
        if (!args.dweight.defined()) return;
        Tensor rows = shares.reshape({1, args.x.rows(), cols}), none,
               sum = args.dweight.reshape({1, 1, cols});
        group_sum({rows, none, sum});
    });
}

// y = a silu(g), [a, g] = depthwise3x3(silu(x)) + bias; recomputed a channel pair at a time.
void depthwise_glu_grad(const DepthwiseGluGradArgs& args) {
    dispatch_fp32_fp64("depthwise_glu", args.x.dtype(), [&]<class T>() {
        int64_t frames = args.x.dim(0) * args.x.dim(1), height = args.x.dim(2), width = args.x.dim(3);
        int64_t channels = args.x.dim(4), half = channels / 2, pixels = height * width;
        const T* x = args.x.data<T>();
        const T* w = args.weight.data<T>();
        const T* dy = args.dy.data<T>();
        parallel_for(half, frames * pixels * 200, [&](int64_t pair) {
            std::vector<T> s[2], dz[2];
            for (int part = 0; part < 2; ++part) {
                s[part].assign(static_cast<size_t>(pixels), T(0));
                dz[part] = s[part];
            }
            T dw[2][9] = {}, db[2] = {};
            auto inside = [&](int64_t h, int64_t v) { return h >= 0 && h < height && v >= 0 && v < width; };
            for (int64_t f = 0; f < frames; ++f) {
                for (int64_t part = 0; part < 2; ++part) {
                    for (int64_t p = 0; p < pixels; ++p)
                        s[part][static_cast<size_t>(p)] =
                            silu_(x[(f * pixels + p) * channels + part * half + pair]);
                }
                for (int64_t p = 0; p < pixels; ++p) {
                    T z[2];
                    for (int64_t part = 0; part < 2; ++part) {
                        z[part] = args.bias.defined() ? args.bias.data<T>()[part * half + pair] : T(0);
                        for (int64_t k = 0; k < 9; ++k) {
                            int64_t h = p / width + k / 3 - 1, v = p % width + k % 3 - 1;
                            if (inside(h, v))
                                z[part] += w[k * channels + part * half + pair] *
                                           s[part][static_cast<size_t>(h * width + v)];
                        }
                    }
                    T g = dy[(f * pixels + p) * half + pair];
                    dz[0][static_cast<size_t>(p)] = g * silu_(z[1]);
                    dz[1][static_cast<size_t>(p)] = g * z[0] * activation_slope(Activation::silu, z[1]);
                }
                for (int64_t part = 0; part < 2; ++part) {
                    int64_t channel = part * half + pair;
                    for (int64_t p = 0; p < pixels; ++p) {
                        T ds = 0;
                        for (int64_t k = 0; k < 9; ++k) {
                            int64_t h = p / width + k / 3 - 1, v = p % width + k % 3 - 1;
                            if (inside(h, v))
                                dw[part][k] += dz[part][static_cast<size_t>(p)] *
                                               s[part][static_cast<size_t>(h * width + v)];
                            int64_t back_h = p / width - k / 3 + 1, back_v = p % width - k % 3 + 1;
                            if (inside(back_h, back_v))
                                ds += dz[part][static_cast<size_t>(back_h * width + back_v)] *
                                      w[k * channels + channel];
                        }
                        db[part] += dz[part][static_cast<size_t>(p)];
                        int64_t at = (f * pixels + p) * channels + channel;
                        args.dx.data<T>()[at] = ds * activation_slope(Activation::silu, x[at]);
                    }
                }
            }
            for (int64_t part = 0; part < 2; ++part) {
                for (int64_t k = 0; k < 9; ++k)
                    args.dweight.data<T>()[k * channels + part * half + pair] = dw[part][k];
                args.dbias.data<T>()[part * half + pair] = db[part];
            }
        });
    });
}

}  // namespace sana::cpu

namespace sana {

const GradientKernels cpu_gradient_kernels{
    .product = cpu::product,
    .group_sum = cpu::group_sum,
    .group_scale = cpu::group_scale,
    .scale_all = cpu::scale_all,
    .activate = cpu::activate_grad,
    .layer_norm_modulate = cpu::layer_norm_modulate_grad,
    .rms_norm = cpu::rms_norm_grad,
    .linear_attention = cpu::linear_attention_grad,
    .attention = cpu::attention_grad,
    .depthwise_glu = cpu::depthwise_glu_grad,
    .conv3d_weight = cpu::conv3d_weight_grad,
    .unpad = cpu::unpad,
    .sum_pixels = cpu::sum_pixels,
    .clamp = cpu::clamp_grad,
    .group_mean = cpu::group_mean_grad,
    .embedding = cpu::embedding_grad,
    .difference_loss = cpu::difference_loss,
    .kl_loss = cpu::kl_loss,
    .gaussian_sample = cpu::gaussian_sample,
    .gaussian_sample_logvar = cpu::gaussian_sample_grad,
    .square_sum = cpu::square_sum,
    .adamw = cpu::adamw,
    .came = cpu::came,
    .orthogonalise = cpu::orthogonalise,
    .muon_moment = cpu::muon_moment,
    .muon_step = cpu::muon_step,
    .average = cpu::average_step,
};

}  // namespace sana
