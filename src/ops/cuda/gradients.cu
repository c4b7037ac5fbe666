// The table of derivative kernels, and those that go element by element or sum over rows.
#include "ops/cuda/gradients.h"

#include "ops/cuda/device/derivative.cuh"
#include "ops/cuda/gemm.h"

namespace sana {

const GradientKernels cuda_gradient_kernels{
    .product = cuda::matrix_product,
    .group_sum = cuda::group_sum,
    .group_scale = cuda::group_scale,
    .scale_all = cuda::scale_all,
    .activate = cuda::activate_grad,
    .layer_norm_modulate = cuda::layer_norm_modulate_grad,
    .rms_norm = cuda::rms_norm_grad,
    .linear_attention = cuda::linear_attention_grad,
    .attention = cuda::attention_grad,
    .depthwise_glu = cuda::depthwise_glu_grad,
    .conv3d_weight = cuda::conv3d_weight_grad,
    .unpad = cuda::unpad,
    .sum_pixels = cuda::sum_pixels,
    .clamp = cuda::clamp_grad,
    .group_mean = cuda::group_mean_grad,
    .embedding = cuda::embedding_grad,
    .difference_loss = cuda::difference_loss,
    .kl_loss = cuda::kl_loss,
    .gaussian_sample = cuda::gaussian_sample,
    .gaussian_sample_logvar = cuda::gaussian_sample_grad,
    .square_sum = cuda::square_sum,
    .adamw = cuda::adamw,
    .came = cuda::came,
    .orthogonalise = cuda::orthogonalise,
    .muon_moment = cuda::muon_moment,
    .muon_step = cuda::muon_step,
    .average = cuda::average_step,
};

}  // namespace sana

namespace sana::cuda {

namespace {

// Sums of columns: a thread keeps V neighbouring columns of every so many rows of its part of a group. Narrow rows take
// fewer of a block's threads, so that more rows are read at once.
constexpr int kSumThreads = 256;

template <class T, int V, bool Product>
__global__ void group_sum_kernel(Rows<T> a, Rows<T> b, float* partial, int64_t cols, int64_t per_group,
                                 int64_t per_part, int column_lanes) {
    __shared__ float sums[kSumThreads * V];
    int row_lanes = kSumThreads / column_lanes, lane = static_cast<int>(threadIdx.x) % column_lanes,
        row_lane = static_cast<int>(threadIdx.x) / column_lanes, wide = column_lanes * V;
    int64_t col = static_cast<int64_t>(blockIdx.x) * wide + lane * V, group = blockIdx.z;
    int64_t first = blockIdx.y * per_part, last = min(first + per_part, per_group);
    float total[V] = {};
    if (col < cols && row_lane < row_lanes) {
        for (int64_t i = first + row_lane; i < last; i += row_lanes) {
            int64_t row = group * per_group + i;
            float x[V], y[V];
            load<V>(a.data + row * a.stride + col, x);
            if constexpr (Product) load<V>(b.data + row * b.stride + col, y);
#pragma unroll
            for (int v = 0; v < V; ++v) total[v] += Product ? x[v] * y[v] : x[v];
        }
    }
    if (row_lane < row_lanes) {
#pragma unroll
        for (int v = 0; v < V; ++v) sums[row_lane * wide + lane * V + v] = total[v];
    }
    __syncthreads();
    for (int c = static_cast<int>(threadIdx.x); c < wide; c += kSumThreads) {
        int64_t at = static_cast<int64_t>(blockIdx.x) * wide + c;
        if (at >= cols) break;
        float sum = 0;
        for (int r = 0; r < row_lanes; ++r) sum += sums[r * wide + c];
        partial[(group * gridDim.y + blockIdx.y) * cols + at] = sum;
    }
}

template <class T, int V>
void launch_group_sum(const GroupSumArgs& args, float* partial, int64_t per_part, int lanes, dim3 grid) {
    int64_t per_group = args.a.dim(1) / args.y.dim(1);
    cudaStream_t stream = stream_of(args.a.device());
    if (args.b.defined()) {
        group_sum_kernel<T, V, true><<<grid, kSumThreads, 0, stream>>>(
            rows_of<T>(args.a), rows_of<T>(args.b), partial, args.a.cols(), per_group, per_part, lanes);
    } else {
        group_sum_kernel<T, V, false><<<grid, kSumThreads, 0, stream>>>(
            rows_of<T>(args.a), {}, partial, args.a.cols(), per_group, per_part, lanes);
    }
}

// f(i) for every i below count.
template <class F>
__global__ void each_kernel(int64_t count, F f) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) f(i);
}

template <class F>
void each(const char* op, Device device, int64_t count, F f) {
    if (count == 0) return;
    each_kernel<<<grid_for(count, 256), 256, 0, stream_of(device)>>>(count, f);
    check_launch(op, device);
}

// f.at<V>(row, column) for vectors of V elements along the rows of y.
template <int V, class F>
struct EachVector {
    F f;
    int64_t units;
    __device__ void operator()(int64_t i) const {
        int64_t row = i / units;
        f.template at<V>(row, (i - row * units) * V);
    }
};

template <class T, class F>
void each_vector(const char* op, const Tensor& y, bool vectors, F f) {
    constexpr int V = kLanes<T>;
    if (vectors && vectors_fit(y)) {
        each(op, y.device(), y.numel() / V, EachVector<V, F>{f, y.cols() / V});
    } else {
        each(op, y.device(), y.numel(), EachVector<1, F>{f, y.cols()});
    }
}

// 32 columns a block; every warp adds up each kPartLanes-th part, then the warps' sums are added up.
constexpr int kPartLanes = 32;

template <class T>
__global__ void sum_parts_kernel(const float* partial, T* y, int64_t parts, int64_t cols) {
    __shared__ float sums[kPartLanes][32];
    int lane = static_cast<int>(threadIdx.x), warp = static_cast<int>(threadIdx.y);
    int64_t col = static_cast<int64_t>(blockIdx.x) * 32 + lane, group = blockIdx.y;
    float sum = 0;
    if (col < cols) {
        const float* from = partial + group * parts * cols + col;
#pragma unroll 8
        for (int64_t p = warp; p < parts; p += kPartLanes) sum += from[p * cols];
    }
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || col >= cols) return;
    sum = 0;
#pragma unroll
    for (int w = 0; w < kPartLanes; ++w) sum += sums[w][lane];
    y[group * cols + col] = from_float<T>(sum);
}

// A thread a column, where the parts are too few for several warps.
template <class T>
struct SumFewParts {
    const float* partial;
    T* y;
    int64_t parts, cols;
    __device__ void operator()(int64_t i) const {
        const float* from = partial + i / cols * parts * cols + i % cols;
        float sum = 0;
        for (int64_t p = 0; p < parts; ++p) sum += from[p * cols];
        y[i] = from_float<T>(sum);
    }
};

template <class T>
struct GroupScale {
    Rows<T> x, scale;
    T* y;
    int64_t cols, tokens, groups, per_group;
    template <int V>
    __device__ void at(int64_t row, int64_t col) const {
        float a[V], b[V];
        load<V>(x.data + row * x.stride + col, a);
        load<V>(scale.data + (row / tokens * groups + row % tokens / per_group) * scale.stride + col, b);
#pragma unroll
        for (int v = 0; v < V; ++v) a[v] *= b[v];
        store<V>(y + row * cols + col, a);
    }
};

template <class T>
struct ScaleAll {
    const float* factor;
    T* x;
    template <int V>
    __device__ void at(int64_t, int64_t col) const {
        float f = *factor, a[V];
        if (f == 1) return;
        load<V>(x + col, a);
#pragma unroll
        for (int v = 0; v < V; ++v) a[v] *= f;
        store<V>(x + col, a);
    }
};

template <class T, class Slope>
struct TimesSlope {
    Rows<T> x, dy;
    T* dx;
    int64_t cols;
    Slope slope_of;
    template <int V>
    __device__ void at(int64_t row, int64_t col) const {
        float a[V], b[V];
        load<V>(x.data + row * x.stride + col, a);
        load<V>(dy.data + row * dy.stride + col, b);
#pragma unroll
        for (int v = 0; v < V; ++v) b[v] *= slope_of(a[v]);
        store<V>(dx + row * cols + col, b);
    }
};
struct ActivationSlope {
    Activation activation;
    __device__ float operator()(float x) const { return slope(activation, x); }
};
struct ClampSlope {
    float low, high;
    __device__ float operator()(float x) const { return x >= low && x <= high ? 1.0f : 0.0f; }
};

template <class T>
struct SpreadMean {
    Rows<T> dy;
    T* dx;
    int64_t cols, group;
    __device__ void operator()(int64_t i) const {
        int64_t row = i / cols, col = i - row * cols;
        dx[i] = from_float<T>(to_float(dy.data[row * dy.stride + col / group]) / static_cast<float>(group));
    }
};

template <class T>
struct SumPixels {
    const T* dy;
    T* dx;
    int64_t cols, width;
    float factor;
    template <int V>
    __device__ void at(int64_t pixel, int64_t col) const {
        int64_t row = pixel / width, w = pixel - row * width;
        const T* from = dy + (row * 4 * width + 2 * w) * cols + col;
        float sum[V] = {}, part[V];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            load<V>(from + (k / 2 * 2 * width + k % 2) * cols, part);
#pragma unroll
            for (int v = 0; v < V; ++v) sum[v] += part[v];
        }
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v] *= factor;
        store<V>(dx + pixel * cols + col, sum);
    }
};

// A token whose id did not occur before sums the gradients of all tokens with that id, in order.
template <class T>
struct SumTokens {
    const int32_t* ids;
    Rows<T> dy;
    T* dtable;
    int64_t tokens, cols;
    float scale;
    __device__ void operator()(int64_t i) const {
        int64_t token = i / cols, col = i - token * cols;
        int32_t id = ids[token];
        for (int64_t t = 0; t < token; ++t) {
            if (ids[t] == id) return;
        }
        float sum = 0;
        for (int64_t t = token; t < tokens; ++t) {
            if (ids[t] == id) sum += to_float(dy.data[t * dy.stride + col]);
        }
        dtable[id * cols + col] = from_float<T>(sum * to_float(from_float<T>(scale)));
    }
};

}  // namespace

void sum_parts(const Tensor& partial, int64_t parts, Tensor& y) {
    dim3 grid(static_cast<unsigned>((y.cols() + 31) / 32), static_cast<unsigned>(y.rows()));
    dispatch_cuda("group_sum", y.dtype(), [&]<class T>() {
        if (parts <= kPartLanes / 4) {
            return each("group_sum", y.device(), y.numel(),
                        SumFewParts<T>{pointer<float>(partial), pointer<T>(y), parts, y.cols()});
        }
        sum_parts_kernel<T><<<grid, dim3(32, kPartLanes), 0, stream_of(y.device())>>>(
            pointer<float>(partial), pointer<T>(y), parts, y.cols());
    });
    check_launch("group_sum", y.device());
}

void matrix_product(const ProductArgs& args) {
    product({.dtype = args.a.dtype(),
             .y_dtype = args.y.dtype(),
             .M = args.y.rows(),
             .N = args.y.cols(),
             .K = args.a_transposed ? args.a.rows() : args.a.cols(),
             .x = matrix(args.a),
             .w = matrix(args.b),
             .y = matrix(args.y),
             .device = args.a.device(),
             .x_transposed = args.a_transposed,
             .w_transposed = !args.b_transposed});
}

void group_sum(const GroupSumArgs& args) {
    if (args.y.numel() == 0) return;
    int64_t groups = args.a.dim(0) * args.y.dim(1), per_group = args.a.dim(1) / args.y.dim(1),
            cols = args.a.cols();
    check(groups <= 65535, "group_sum: ", groups, " groups are more than one launch can hold");
    dispatch_cuda("group_sum", args.a.dtype(), [&]<class T>() {
        bool vectors = vectors_fit(args.a) && (!args.b.defined() || vectors_fit(args.b));
        int64_t lane = vectors ? kLanes<T> : 1, lanes = std::min<int64_t>(32, (cols + lane - 1) / lane),
                wide = lanes * lane, column_blocks = (cols + wide - 1) / wide;
        // Enough blocks for the device, but 64 rows or more a block.
        int64_t wanted = std::max<int64_t>(1, 132 * 4 / (column_blocks * groups));
        int64_t parts = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, per_group / 64));
        int64_t per_part = (per_group + parts - 1) / parts;
        Tensor partial = empty({groups, parts, cols}, DType::F32, args.a.device());
        dim3 grid(static_cast<unsigned>(column_blocks), static_cast<unsigned>(parts),
                  static_cast<unsigned>(groups));
        if (vectors) {
            launch_group_sum<T, kLanes<T>>(args, pointer<float>(partial), per_part, static_cast<int>(lanes),
                                           grid);
        } else {
            launch_group_sum<T, 1>(args, pointer<float>(partial), per_part, static_cast<int>(lanes), grid);
        }
        check_launch("group_sum", args.a.device());
        sum_parts(partial, parts, args.y);
    });
}

void group_scale(const GroupScaleArgs& args) {
    dispatch_cuda("group_scale", args.x.dtype(), [&]<class T>() {
        int64_t tokens = args.x.dim(1), groups = args.scale.dim(1);
        each_vector<T>("group_scale", args.y, vectors_fit(args.x) && vectors_fit(args.scale),
                       GroupScale<T>{rows_of<T>(args.x), rows_of<T>(args.scale), pointer<T>(args.y),
                                     args.y.cols(), tokens, groups, std::max<int64_t>(1, tokens / groups)});
    });
}

void scale_all(const ScaleAllArgs& args) {
    dispatch_cuda("scale_all", args.x.dtype(), [&]<class T>() {
        each_vector<T>("scale_all", args.x, true,
                       ScaleAll<T>{pointer<float>(args.factor), pointer<T>(args.x)});
    });
}

void activate_grad(const ActivateGradArgs& args) {
    dispatch_cuda("activate", args.x.dtype(), [&]<class T>() {
        TimesSlope<T, ActivationSlope> f{
            rows_of<T>(args.x), rows_of<T>(args.dy), pointer<T>(args.dx), args.dx.cols(), {args.activation}};
        each_vector<T>("activate", args.dx, vectors_fit(args.x) && vectors_fit(args.dy), f);
    });
}

void clamp_grad(const ClampGradArgs& args) {
    dispatch_cuda("clamp", args.x.dtype(), [&]<class T>() {
        TimesSlope<T, ClampSlope> f{rows_of<T>(args.x),
                                    rows_of<T>(args.dy),
                                    pointer<T>(args.dx),
                                    args.dx.cols(),
                                    {args.low, args.high}};
        each_vector<T>("clamp", args.dx, vectors_fit(args.x) && vectors_fit(args.dy), f);
    });
}

void group_mean_grad(const GroupMeanGradArgs& args) {
    dispatch_cuda("group_mean", args.dx.dtype(), [&]<class T>() {
        each("group_mean", args.dx.device(), args.dx.numel(),
             SpreadMean<T>{rows_of<T>(args.dy), pointer<T>(args.dx), args.dx.cols(), args.group});
    });
}

void sum_pixels(const SumPixelsArgs& args) {
    dispatch_cuda("upsample_nearest", args.dx.dtype(), [&]<class T>() {
        SumPixels<T> f{pointer<T>(args.dy), pointer<T>(args.dx), args.dx.cols(), args.dx.dim(3), args.factor};
        each_vector<T>("upsample_nearest", args.dx, vectors_fit(args.dy), f);
    });
}

void embedding_grad(const EmbeddingGradArgs& args) {
    CHECK_CUDA(cudaMemsetAsync(args.dtable.raw(), 0, static_cast<size_t>(args.dtable.bytes()),
                               stream_of(args.dtable.device())));
    dispatch_cuda("embedding", args.dtable.dtype(), [&]<class T>() {
        int64_t tokens = args.ids.numel(), cols = args.dtable.cols();
        each("embedding", args.dtable.device(), tokens * cols,
             SumTokens<T>{pointer<int32_t>(args.ids), rows_of<T>(args.dy), pointer<T>(args.dtable), tokens,
                          cols, args.scale});
    });
}

}  // namespace sana::cuda
