// Losses and optimiser steps. Sums: a fixed number of blocks, each with its part, then the parts in order.
#include "ops/optim.h"

#include "ops/cuda/device/derivative.cuh"
#include "ops/cuda/gradients.h"

namespace sana::cuda {

namespace {

constexpr int kThreads = 256, kBlocks = 528;

__device__ __forceinline__ int64_t first_index() {
    return blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
}
__device__ __forceinline__ int64_t grid_step() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

__global__ void total_kernel(const float* partial, int parts, double factor, float* value) {
    double sum = 0;
    for (int i = 0; i < parts; ++i) sum += static_cast<double>(partial[i]);
    *value = static_cast<float>(sum * factor);
}

template <class T, class Target>
__global__ void difference_kernel(const T* x, const Target* target, const float* weight, int64_t per_group,
                                  float all, bool squared, T* dx, float* partial, int64_t count) {
    float sum = 0;
    for (int64_t i = first_index(); i < count; i += grid_step()) {
        float w = weight == nullptr ? all : weight[i / per_group];
        float d = to_float(x[i]) - to_float(target[i]);
        sum += w * (squared ? d * d : fabsf(d));
        dx[i] = from_float<T>(squared ? 2 * w * d : (d > 0 ? w : (d < 0 ? -w : w * d)));
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

template <class T>
__global__ void kl_kernel(const T* mean, const T* logvar, float factor, T* dmean, T* dlogvar, float* partial,
                          int64_t count) {
    float sum = 0;
    for (int64_t i = first_index(); i < count; i += grid_step()) {
        float m = to_float(mean[i]), l = to_float(logvar[i]), variance = expf(l);
        sum += (m * m + variance - 1 - l) / 2;
        dmean[i] = from_float<T>(factor * m);
        dlogvar[i] = from_float<T>(factor * (variance - 1) / 2);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

template <class T>
__global__ void sample_kernel(const T* mean, const T* logvar, const T* noise, T* y, int64_t count) {
    for (int64_t i = first_index(); i < count; i += grid_step())
        y[i] = from_float<T>(to_float(mean[i]) + expf(to_float(logvar[i]) / 2) * to_float(noise[i]));
}

template <class T>
__global__ void sample_grad_kernel(const T* logvar, const T* noise, const T* dy, T* dlogvar, int64_t count) {
    for (int64_t i = first_index(); i < count; i += grid_step())
        dlogvar[i] = from_float<T>(to_float(dy[i]) * to_float(noise[i]) * expf(to_float(logvar[i]) / 2) / 2);
}

template <class T>
__global__ void square_sum_kernel(const T* x, double* partial, int64_t count) {
    float sum = 0;
    for (int64_t i = first_index(); i < count; i += grid_step()) sum += to_float(x[i]) * to_float(x[i]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = static_cast<double>(sum);
}

struct AdamWFactors {
    float rate, b1, b2, eps, decay, first, second, factor;
};

template <class T>
__global__ void adamw_kernel(AdamWFactors o, const T* gradient, float* w, float* m, float* v, T* copy,
                             int64_t count) {
    for (int64_t i = first_index(); i < count; i += grid_step()) {
        float g = o.factor * to_float(gradient[i]);
        float a = o.b1 * m[i] + (1 - o.b1) * g, b = o.b2 * v[i] + (1 - o.b2) * g * g;
        m[i] = a;
        v[i] = b;
        float x = w[i];
        x -= o.rate * (a * o.first / (sqrtf(b * o.second) + o.eps) + o.decay * x);
        w[i] = x;
        if (copy != nullptr) copy[i] = from_float<T>(x);
    }
}

// One block a parameter matrix would be slow for large ones: rows and columns are summed by one block each.
struct SquaredGradient {
    float factor, epsilon;
    __device__ float operator()(float g, float) const { return factor * g * (factor * g) + epsilon; }
};
struct SquaredDoubt {
    float epsilon;
    __device__ float operator()(float u, float m) const { return (u - m) * (u - m) + epsilon; }
};

// mean[line] = beta mean[line] + (1 - beta) * average of f over the line's elements; a block a line.
template <class A, class F>
__global__ void merge_means_kernel(const A* a, const float* b, int64_t length, int64_t line_step,
                                   int64_t step, float beta, float* mean, F f) {
    int64_t start = blockIdx.x * line_step;
    float sum = 0;
    for (int64_t i = threadIdx.x; i < length; i += blockDim.x) {
        int64_t at = start + i * step;
        sum += f(to_float(a[at]), b == nullptr ? 0.0f : b[at]);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        mean[blockIdx.x] = beta * mean[blockIdx.x] + (1 - beta) * sum / static_cast<float>(length);
}

__global__ void mean_kernel(const float* x, int64_t count, float* mean) {
    float sum = 0;
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *mean = sum / static_cast<float>(count);
}

// u before clipping, and partial sums of its squares. rows null: a vector, whose columns are merged here.
template <class T>
__global__ void came_update_kernel(const T* gradient, float factor, float beta2, float epsilon1,
                                   const float* rows, const float* row_mean, float* columns, int64_t cols,
                                   float* u, float* partial, int64_t count) {
    float sum = 0;
    for (int64_t i = first_index(); i < count; i += grid_step()) {
        float g = factor * to_float(gradient[i]);
        if (rows == nullptr) columns[i] = beta2 * columns[i] + (1 - beta2) * (g * g + epsilon1);
        float x = g * rsqrtf(columns[rows == nullptr ? i : i % cols]);
        if (rows != nullptr) x *= rsqrtf(rows[i / cols] / *row_mean);
        u[i] = x;
        sum += x * x;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void came_moment_kernel(float* u, const float* square_sum, float clip, float beta1, float* m,
                                   int64_t count) {
    float limit = fmaxf(1.0f, sqrtf(*square_sum / static_cast<float>(count)) / clip);
    for (int64_t i = first_index(); i < count; i += grid_step()) {
        u[i] /= limit;
        m[i] = beta1 * m[i] + (1 - beta1) * u[i];
    }
}

template <class T>
__global__ void came_step_kernel(const float* m, const float* rows, const float* row_mean,
                                 const float* columns, int64_t cols, float rate, float decay, float* w,
                                 T* copy, int64_t count) {
    for (int64_t i = first_index(); i < count; i += grid_step()) {
        float x = m[i];
        if (rows != nullptr) x *= rsqrtf(rows[i / cols] / *row_mean) * rsqrtf(columns[i % cols]);
        w[i] -= rate * (x + decay * w[i]);
        if (copy != nullptr) copy[i] = from_float<T>(w[i]);
    }
}

__global__ void average_kernel(float keep, const float* w, float* average, int64_t count) {
    for (int64_t i = first_index(); i < count; i += grid_step())
        average[i] += (1 - keep) * (w[i] - average[i]);
}

}  // namespace

void difference_loss(const DifferenceLossArgs& args) {
    int64_t count = args.x.numel();
    Tensor partial = empty({kBlocks}, DType::F32, args.x.device());
    cudaStream_t stream = stream_of(args.x.device());
    const float* weight = args.weight.defined() ? pointer<float>(args.weight) : nullptr;
    int64_t per_group = args.weight.defined() ? count / args.weight.numel() : count;
    dispatch_cuda("difference_loss", args.x.dtype(), [&]<class T>() {
        auto start = [&](auto* target) {
            difference_kernel<<<kBlocks, kThreads, 0, stream>>>(
                pointer<T>(args.x), target, weight, per_group, 1 / static_cast<float>(count),
                args.kind == LossKind::squared, pointer<T>(args.dx), pointer<float>(partial), count);
        };
        if (args.target.dtype() == DType::F32) {
            start(static_cast<const float*>(args.target.raw()));
        } else {
            start(static_cast<const T*>(args.target.raw()));
        }
    });
    total_kernel<<<1, 1, 0, stream>>>(pointer<float>(partial), kBlocks, 1, pointer<float>(args.value));
    check_launch("difference_loss", args.x.device());
}

void kl_loss(const KlLossArgs& args) {
    Tensor partial = empty({kBlocks}, DType::F32, args.mean.device());
    cudaStream_t stream = stream_of(args.mean.device());
    dispatch_cuda("kl_loss", args.mean.dtype(), [&]<class T>() {
        kl_kernel<T><<<kBlocks, kThreads, 0, stream>>>(
            pointer<T>(args.mean), pointer<T>(args.logvar), static_cast<float>(args.factor),
            pointer<T>(args.dmean), pointer<T>(args.dlogvar), pointer<float>(partial), args.mean.numel());
    });
    total_kernel<<<1, 1, 0, stream>>>(pointer<float>(partial), kBlocks, args.factor,
                                      pointer<float>(args.value));
    check_launch("kl_loss", args.mean.device());
}

void gaussian_sample(const GaussianSampleArgs& args) {
    dispatch_cuda("gaussian_sample", args.y.dtype(), [&]<class T>() {
        sample_kernel<T><<<grid_for(args.y.numel(), kThreads), kThreads, 0, stream_of(args.y.device())>>>(
            pointer<T>(args.mean), pointer<T>(args.logvar), pointer<T>(args.noise), pointer<T>(args.y),
            args.y.numel());
    });
    check_launch("gaussian_sample", args.y.device());
}

void gaussian_sample_grad(const GaussianSampleGradArgs& args) {
    dispatch_cuda("gaussian_sample", args.dy.dtype(), [&]<class T>() {
        sample_grad_kernel<T>
            <<<grid_for(args.dy.numel(), kThreads), kThreads, 0, stream_of(args.dy.device())>>>(
                pointer<T>(args.logvar), pointer<T>(args.noise), pointer<T>(args.dy),
                pointer<T>(args.dlogvar), args.dy.numel());
    });
    check_launch("gaussian_sample", args.dy.device());
}

void square_sum(const SquareSumArgs& args) {
    dispatch_cuda("square_sum", args.x.dtype(), [&]<class T>() {
        square_sum_kernel<T><<<kBlocks, kThreads, 0, stream_of(args.x.device())>>>(
            pointer<T>(args.x), static_cast<double*>(args.partial.raw()), args.x.numel());
    });
    check_launch("square_sum", args.x.device());
}

void adamw(const AdamWArgs& args) {
    const AdamWOptions& o = args.options;
    double step = static_cast<double>(o.step);
    AdamWFactors f{static_cast<float>(o.rate),
                   static_cast<float>(o.beta1),
                   static_cast<float>(o.beta2),
                   static_cast<float>(o.epsilon),
                   static_cast<float>(o.decay),
                   static_cast<float>(1 / (1 - std::pow(o.beta1, step))),
                   static_cast<float>(1 / (1 - std::pow(o.beta2, step))),
                   static_cast<float>(o.factor)};
    int64_t count = args.weights.numel();
    dispatch_cuda("adamw", args.gradient.dtype(), [&]<class T>() {
        adamw_kernel<T><<<grid_for(count, kThreads), kThreads, 0, stream_of(args.weights.device())>>>(
            f, pointer<T>(args.gradient), pointer<float>(args.weights), pointer<float>(args.m),
            pointer<float>(args.v), args.copy.defined() ? pointer<T>(args.copy) : nullptr, count);
    });
    check_launch("adamw", args.weights.device());
}

void came(const CameArgs& args) {
    const CameOptions& o = args.options;
    CameState& s = args.state;
    bool factored = s.rows.defined();
    int64_t count = args.weights.numel(), cols = s.columns.numel(), rows = count / cols;
    Device device = args.weights.device();
    cudaStream_t stream = stream_of(device);
    unsigned blocks = grid_for(count, kThreads);
    Tensor u = empty({count}, DType::F32, device), partial = empty({kBlocks}, DType::F32, device);
    Tensor numbers = empty({2}, DType::F32, device);  // a mean of rows, the sum of squares of u
    float *mean = pointer<float>(numbers), *squares = mean + 1;
    auto f32 = [](const Tensor& x) { return x.defined() ? pointer<float>(x) : nullptr; };
    auto real = [](double x) { return static_cast<float>(x); };
    dispatch_cuda("came", args.gradient.dtype(), [&]<class T>() {
        const T* gradient = pointer<T>(args.gradient);
        auto merge = [&](auto* a, const float* b, double beta, const Tensor& r, const Tensor& c, auto f) {
            merge_means_kernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(
                a, b, cols, cols, int64_t{1}, real(beta), f32(r), f);
            merge_means_kernel<<<static_cast<unsigned>(cols), kThreads, 0, stream>>>(
                a, b, rows, int64_t{1}, cols, real(beta), f32(c), f);
            mean_kernel<<<1, kThreads, 0, stream>>>(f32(r), rows, mean);
        };
        if (factored)
            merge(gradient, nullptr, o.beta2, s.rows, s.columns,
                  SquaredGradient{real(o.factor), real(o.epsilon1)});
        came_update_kernel<T><<<kBlocks, kThreads, 0, stream>>>(
            gradient, real(o.factor), real(o.beta2), real(o.epsilon1), f32(s.rows), mean, f32(s.columns),
            cols, f32(u), f32(partial), count);
        total_kernel<<<1, 1, 0, stream>>>(f32(partial), kBlocks, 1, squares);
        came_moment_kernel<<<blocks, kThreads, 0, stream>>>(f32(u), squares, real(o.clip), real(o.beta1),
                                                            f32(s.m), count);
        if (factored)
            merge(static_cast<const float*>(f32(u)), f32(s.m), o.beta3, s.doubt_rows, s.doubt_columns,
                  SquaredDoubt{real(o.epsilon2)});
        came_step_kernel<T><<<blocks, kThreads, 0, stream>>>(
            f32(s.m), factored ? f32(s.doubt_rows) : nullptr, mean, f32(s.doubt_columns), cols, real(o.rate),
            real(o.decay), f32(args.weights), args.copy.defined() ? pointer<T>(args.copy) : nullptr, count);
    });
    check_launch("came", device);
}

void average_step(const AverageArgs& args) {
    int64_t count = args.weights.numel();
    average_kernel<<<grid_for(count, kThreads), kThreads, 0, stream_of(args.weights.device())>>>(
        static_cast<float>(args.rate), pointer<float>(args.weights), pointer<float>(args.average), count);
    check_launch("average_step", args.weights.device());
}

}  // namespace sana::cuda
