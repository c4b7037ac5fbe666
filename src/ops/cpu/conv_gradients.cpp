// Derivatives of convolutions, resampling, embeddings and of products, in fp32 and fp64.
#include <cstring>

#include "core/parallel.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/gradients.h"

namespace sana::cpu {

namespace {

// x's rows as columns: [rows, cols] -> [cols, rows].
template <class T>
Tensor transposed(const T* x, int64_t rows, int64_t cols, int64_t stride) {
    Tensor y = empty({cols, rows}, dtype_of<T>());
    strided_copy({{cols, rows}, x, {1, stride}, y.raw(), {rows, 1}, int64_t{sizeof(T)}, kCpu});
    return y;
}

int64_t source_index(int64_t position, int64_t size, PadMode mode) {
    if (position >= 0 && position < size) return position;
    if (mode == PadMode::replicate) return position < 0 ? 0 : size - 1;
    if (mode == PadMode::reflect) return position < 0 ? -position : 2 * (size - 1) - position;
    return -1;
}

}  // namespace

void product(const ProductArgs& args) {
    dispatch_fp32_fp64("linear", args.a.dtype(), [&]<class T>() {
        Tensor a = args.a, b = args.b;
        int64_t depth = args.a_transposed ? a.rows() : a.cols();
        auto turned = [](const Tensor& x) {
            return transposed(x.data<T>(), x.rows(), x.cols(), x.row_stride());
        };
        if (args.a_transposed) a = turned(a);
        if (!args.b_transposed) b = turned(b);
        gemm<T>(args.y.rows(), args.y.cols(), depth, a.data<T>(), a.row_stride(), b.data<T>(), b.row_stride(),
                args.y.data<T>(), args.y.cols(), false);
    });
}

// Rows of what all taps see, a part of the results at a time, and one product of dy with each part.
void conv3d_weight_grad(const Conv3dWeightGradArgs& args) {
    constexpr int64_t kPartBytes = int64_t{64} << 20;
    const Conv3dOptions& o = args.options;
    dispatch_fp32_fp64("conv3d", args.x.dtype(), [&]<class T>() {
        const Tensor &x = args.x, &dy = args.dy, &dw = args.dweight;
        int64_t out = dw.dim(0), in = dw.dim(4), taps = dw.dim(1) * dw.dim(2) * dw.dim(3), depth = taps * in;
        int64_t past = o.past.defined() ? o.past.dim(1) : 0, rows = dy.rows();
        int64_t part =
            std::clamp<int64_t>(kPartBytes / (depth * size_of(x.dtype())), 1, std::max<int64_t>(rows, 1));
        Tensor seen = empty({part, depth}, x.dtype());
        for (int64_t first = 0; first < rows; first += part) {
            int64_t count = std::min(part, rows - first);
            parallel_for(count, depth, [&](int64_t i) {
                int64_t r = first + i, w0 = r % dy.dim(3), h0 = r / dy.dim(3) % dy.dim(2);
                int64_t t0 = r / dy.dim(3) / dy.dim(2) % dy.dim(1), b = r / dy.dim(3) / dy.dim(2) / dy.dim(1);
                for (int64_t tap = 0; tap < taps; ++tap) {
                    int64_t du = tap / dw.dim(3) / dw.dim(2), dv = tap / dw.dim(3) % dw.dim(2),
                            ds = tap % dw.dim(3);
                    int64_t t =
                        source_index(t0 * o.stride[0] + du - o.pad_before[0], x.dim(1) + past, o.time_mode);
                    int64_t h = source_index(h0 * o.stride[1] + dv - o.pad_before[1], x.dim(2), o.space_mode);
                    int64_t w = source_index(w0 * o.stride[2] + ds - o.pad_before[2], x.dim(3), o.space_mode);
                    T* to = seen.data<T>() + i * depth + tap * in;
                    if (t < 0 || h < 0 || w < 0) {
                        std::fill(to, to + in, T(0));
                        continue;
                    }
                    const Tensor& from = t < past ? o.past : x;
                    int64_t frame = b * from.dim(1) + (t < past ? t : t - past);
                    std::copy_n(from.data<T>() + ((frame * x.dim(2) + h) * x.dim(3) + w) * in, in, to);
                }
            });
            Tensor columns = transposed(dy.data<T>() + first * out, count, out, out);
            Tensor turned = transposed(seen.data<T>(), count, depth, depth);
            gemm<T>(out, depth, count, columns.data<T>(), count, turned.data<T>(), count, dw.data<T>(), depth,
                    first > 0);
        }
    });
}

void unpad(const UnpadArgs& args) {
    const Conv3dOptions& o = args.options;
    dispatch_fp32_fp64("conv3d", args.dx.dtype(), [&]<class T>() {
        int64_t past = args.dpast.defined() ? args.dpast.dim(1) : 0, channels = args.dx.dim(4);
        int64_t frames = args.dx.dim(1) + past, height = args.dx.dim(2), width = args.dx.dim(3);
        const Tensor& p = args.dpadded;
        // An axis: the padded positions that were copied from `index`.
        auto places = [](int64_t index, int64_t size, int64_t padded, int64_t before, PadMode mode) {
            std::vector<int64_t> found;
            for (int64_t i = 0; i < padded; ++i) {
                if (source_index(i - before, size, mode) == index) found.push_back(i);
            }
            return found;
        };
        std::vector<std::vector<int64_t>> rows, columns;
        for (int64_t h = 0; h < height; ++h)
            rows.push_back(places(h, height, p.dim(2), o.pad_before[1], o.space_mode));
        for (int64_t w = 0; w < width; ++w)
            columns.push_back(places(w, width, p.dim(3), o.pad_before[2], o.space_mode));
        parallel_for(args.dx.dim(0) * frames, height * width * channels, [&](int64_t task) {
            int64_t b = task / frames, t = task % frames;
            Tensor& to = t < past ? args.dpast : args.dx;
            T* out = to.data<T>() + (b * to.dim(1) + (t < past ? t : t - past)) * height * width * channels;
            std::fill(out, out + height * width * channels, T(0));
            for (int64_t pt : places(t, frames, p.dim(1), o.pad_before[0], o.time_mode)) {
                for (int64_t pixel = 0; pixel < height * width; ++pixel) {
                    for (int64_t ph : rows[static_cast<size_t>(pixel / width)]) {
                        for (int64_t pw : columns[static_cast<size_t>(pixel % width)]) {
                            const T* from =
                                p.data<T>() +
                                (((b * p.dim(1) + pt) * p.dim(2) + ph) * p.dim(3) + pw) * channels;
                            for (int64_t c = 0; c < channels; ++c) out[pixel * channels + c] += from[c];
                        }
                    }
                }
            }
        });
    });
}

void sum_pixels(const SumPixelsArgs& args) {
    dispatch_fp32_fp64("upsample_nearest", args.dx.dtype(), [&]<class T>() {
        int64_t width = args.dx.dim(3), channels = args.dx.dim(4),
                rows = args.dx.numel() / (width * channels);
        parallel_for(rows, width * channels * 4, [&](int64_t r) {
            const T* top = args.dy.data<T>() + r * 4 * width * channels;
            const T* bottom = top + 2 * width * channels;
            T* to = args.dx.data<T>() + r * width * channels;
            for (int64_t w = 0; w < width; ++w) {
                for (int64_t c = 0; c < channels; ++c) {
                    int64_t at = 2 * w * channels + c;
                    to[w * channels + c] = static_cast<T>(args.factor) * (top[at] + top[at + channels] +
                                                                          bottom[at] + bottom[at + channels]);
                }
            }
        });
    });
}

void clamp_grad(const ClampGradArgs& args) {
    dispatch_fp32_fp64("clamp", args.x.dtype(), [&]<class T>() {
        parallel_for(args.x.rows(), args.x.cols(), [&](int64_t r) {
            const T* x = args.x.data<T>() + r * args.x.row_stride();
            const T* dy = args.dy.data<T>() + r * args.dy.row_stride();
            T* dx = args.dx.data<T>() + r * args.x.cols();
            for (int64_t c = 0; c < args.x.cols(); ++c) {
                bool inside = x[c] >= static_cast<T>(args.low) && x[c] <= static_cast<T>(args.high);
                dx[c] = inside ? dy[c] : T(0);
            }
        });
    });
}

void group_mean_grad(const GroupMeanGradArgs& args) {
    dispatch_fp32_fp64("group_mean", args.dx.dtype(), [&]<class T>() {
        parallel_for(args.dx.rows(), args.dx.cols(), [&](int64_t r) {
            const T* dy = args.dy.data<T>() + r * args.dy.row_stride();
            T* dx = args.dx.data<T>() + r * args.dx.cols();
            for (int64_t c = 0; c < args.dx.cols(); ++c)
                dx[c] = dy[c / args.group] / static_cast<T>(args.group);
        });
    });
}

void embedding_grad(const EmbeddingGradArgs& args) {
    dispatch_fp32_fp64("embedding", args.dtable.dtype(), [&]<class T>() {
        int64_t cols = args.dtable.cols();
        std::fill_n(args.dtable.data<T>(), args.dtable.numel(), T(0));
        for (int64_t i = 0; i < args.ids.numel(); ++i) {
            const T* dy = args.dy.data<T>() + i * cols;
            T* row = args.dtable.data<T>() + args.ids.data<int32_t>()[i] * cols;
            for (int64_t c = 0; c < cols; ++c) row[c] += dy[c] * static_cast<T>(args.scale);
        }
    });
}

}  // namespace sana::cpu
