// Muon. orthogonalise: all matrices of a call go through every launch together, 22 launches a call: a sum of squares in
// parts, x / norm, and five times A = X X^T, A^2, P = a I + b A + c A^2 and P X (for a tall X: A = X^T X and X P). The
// diagonal of P carries a X, so that no pass over X follows a product.
//   fp16 operands, emulated on the host: relative L2 to fp64 1.5e-3 for normal matrices (bf16: 1.2e-2), 0.06 for ones of
//   rank 4 with noise of 1e-3 (bf16: 0.5, since the steps raise its rounding 480 times). No element leaves [-4, 4], and
//   what is too small for fp16 is below 3e-8 of the norm.
//   FLOP 10 B s (2 n m + s^2) with s the smaller of n and m.
#include "ops/cuda/device/element.cuh"
#include "ops/cuda/gemm.h"
#include "ops/cuda/gradients.h"

namespace sana::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostParts = 64, kPerPart = 4096;  // of a matrix's sum of squares
constexpr int64_t kMostMatrices = 65535;             // of a grid's second dimension

__device__ __forceinline__ int64_t first_index() {
    return blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
}
__device__ __forceinline__ int64_t grid_step() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

// x [B, count] -> partial [B, parts]; blocks (parts, B).
__global__ void matrix_squares_kernel(const float* x, float* partial, int64_t count) {
    const float* matrix = x + blockIdx.y * count;
    float sum = 0;
    for (int64_t i = first_index(); i < count; i += grid_step()) sum += matrix[i] * matrix[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

// y = x / (||x|| + eps), matrix by matrix; blocks (any, B). Every thread adds the parts, in the same order.
__global__ void normalise_matrix_kernel(const float* x, const float* partial, int parts, float eps, f16_t* y,
                                        int64_t count) {
    float squares = 0;
    for (int i = 0; i < parts; ++i) squares += partial[blockIdx.y * parts + i];
    float scale = 1 / (sqrtf(squares) + eps);
    for (int64_t i = first_index(); i < count; i += grid_step()) {
        int64_t at = blockIdx.y * count + i;
        y[at] = from_float<f16_t>(x[at] * scale);
    }
}

// A [B,s,s] becomes a I + b A + c S.
__global__ void polynomial_kernel(f16_t* A, const float* S, float a, float b, float c, int64_t side,
                                  int64_t count) {
    for (int64_t i = first_index(); i < count; i += grid_step()) {
        bool diagonal = i % (side * side) % (side + 1) == 0;
        A[i] = from_float<f16_t>((diagonal ? a : 0.0f) + b * to_float(A[i]) + c * S[i]);
    }
}

template <class T>
__global__ void muon_moment_kernel(const T* gradient, float factor, float beta, float* m, float* update,
                                   int64_t count) {
    for (int64_t i = first_index(); i < count; i += grid_step()) {
        float g = factor * to_float(gradient[i]), moment = beta * m[i] + g;
        m[i] = moment;
        update[i] = g + beta * moment;
    }
}

template <class T>
__global__ void muon_step_kernel(const float* update, float rate, float scale, float decay, float* w, T* copy,
                                 int64_t count) {
    for (int64_t i = first_index(); i < count; i += grid_step()) {
        float x = w[i];
        x -= rate * (scale * update[i] + decay * x);
        w[i] = x;
        if (copy != nullptr) copy[i] = from_float<T>(x);
    }
}

float real(double x) { return static_cast<float>(x); }

class Orthogonalise {
public:
    explicit Orthogonalise(const OrthogonaliseArgs& args)
        : args_(args),
          batch_(args.x.dim(0)),
          rows_(args.x.dim(1)),
          cols_(args.x.dim(2)),
          side_(std::min(rows_, cols_)),
          tall_(rows_ > cols_),
          device_(args.x.device()),
          stream_(stream_of(device_)) {}

    void run() {
        Tensor X = empty({batch_, rows_, cols_}, DType::F16, device_), next = empty_like(X);
        Tensor A = empty({batch_, side_, side_}, DType::F16, device_),
               S = empty({batch_, side_, side_}, DType::F32, device_);
        normalise(X);
        for (int step = 0; step < kOrthogonaliseSteps; ++step) {
            gram(X, A);
            square(A, S);
            int64_t count = A.numel();
            polynomial_kernel<<<grid_for(count, kThreads), kThreads, 0, stream_>>>(
                pointer<f16_t>(A), pointer<float>(S), real(kOrthogonaliseA), real(kOrthogonaliseB),
                real(kOrthogonaliseC), side_, count);
            apply(A, X, step + 1 < kOrthogonaliseSteps ? next : args_.y);
            std::swap(X, next);
        }
        check_launch("orthogonalise", device_);
    }

private:
    void normalise(const Tensor& X) {
        int64_t count = rows_ * cols_,
                parts = std::clamp<int64_t>((count + kPerPart - 1) / kPerPart, 1, kMostParts);
        Tensor partial = empty({batch_, parts}, DType::F32, device_);
        dim3 sums(static_cast<unsigned>(parts), static_cast<unsigned>(batch_)),
            elements(grid_for((count + 3) / 4, kThreads), static_cast<unsigned>(batch_));
        matrix_squares_kernel<<<sums, kThreads, 0, stream_>>>(pointer<float>(args_.x),
                                                              pointer<float>(partial), count);
        normalise_matrix_kernel<<<elements, kThreads, 0, stream_>>>(
            pointer<float>(args_.x), pointer<float>(partial), static_cast<int>(parts),
            real(kOrthogonaliseEpsilon), pointer<f16_t>(X), count);
    }

    // Operands of fp16, dense; the result in y's dtype, dense.
    Product base(const Tensor& x, const Tensor& w, const Tensor& y) const {
        Product p;
        p.dtype = DType::F16;
        p.y_dtype = y.dtype();
        p.device = device_;
        p.batch = batch_;
        p.M = y.dim(1);
        p.N = y.dim(2);
        p.x = {x.raw(), x.dim(2)};
        p.w = {w.raw(), w.dim(2)};
        p.y = {y.raw(), y.dim(2)};
        p.x_batch = x.dim(1) * x.dim(2);
        p.w_batch = w.dim(1) * w.dim(2);
        p.y_batch = p.M * p.N;
        return p;
    }

    // A = X X^T, of a tall X: X^T X, whose operands are then stored as [K,M] and [K,N].
    void gram(const Tensor& X, const Tensor& A) const {
        Product p = base(X, X, A);
        p.K = std::max(rows_, cols_);
        p.x_transposed = p.w_transposed = tall_;
        product(p);
    }

    // S = A A^T, which is A^2.
    void square(const Tensor& A, const Tensor& S) const {
        Product p = base(A, A, S);
        p.K = side_;
        product(p);
    }

    // y = P X, of a tall X: X P. The right factor is stored as [K,N].
    void apply(const Tensor& P, const Tensor& X, const Tensor& y) const {
        Product p = tall_ ? base(X, P, y) : base(P, X, y);
        p.K = side_;
        p.w_transposed = true;
        product(p);
    }

    const OrthogonaliseArgs& args_;
    int64_t batch_, rows_, cols_, side_;
    bool tall_;
    Device device_;
    cudaStream_t stream_;
};

}  // namespace

void orthogonalise(const OrthogonaliseArgs& args) {
    check(args.x.dim(0) <= kMostMatrices, "orthogonalise: ", args.x, " has more than ", kMostMatrices,
          " matrices");
    Orthogonalise(args).run();
}

void muon_moment(const MuonMomentArgs& args) {
    int64_t count = args.m.numel();
    dispatch_cuda("muon", args.gradient.dtype(), [&]<class T>() {
        muon_moment_kernel<T><<<grid_for(count, kThreads), kThreads, 0, stream_of(args.m.device())>>>(
            pointer<T>(args.gradient), real(args.options.factor), real(args.options.beta),
            pointer<float>(args.m), pointer<float>(args.update), count);
    });
    check_launch("muon", args.m.device());
}

void muon_step(const MuonStepArgs& args) {
    int64_t count = args.weights.numel();
    // The copy decides; without one any type does.
    DType dtype = args.copy.defined() ? args.copy.dtype() : DType::F32;
    dispatch_cuda("muon", dtype, [&]<class T>() {
        muon_step_kernel<T><<<grid_for(count, kThreads), kThreads, 0, stream_of(args.weights.device())>>>(
            pointer<float>(args.update), real(args.options.rate), real(args.scale), real(args.options.decay),
            pointer<float>(args.weights), args.copy.defined() ? pointer<T>(args.copy) : nullptr, count);
    });
    check_launch("muon", args.weights.device());
}

}  // namespace sana::cuda
