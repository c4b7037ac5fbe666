// The derivative of linear_attention: features and gradients lie head by head, [B,A,N,D], so that every sum is one batched
// product; what happens between the products goes a token by a warp.
//   o = S q~ / D, D = q' . s + eps, S = sum v k~^T, s = sum k'.  With g = dy / D and e = -(g . S q~) / D:
//   dq~ = S^T g, dq' += e s;  dS = sum g q~^T, ds = sum e q';  dv = dS k~, dk~ = dS^T v, dk' += ds.
#include "ops/cuda/device/derivative.cuh"
#include "ops/cuda/gemm.h"
#include "ops/cuda/gradients.h"

namespace sana::cuda {

namespace {

struct Heads {
    int64_t tokens, heads, width;  // N, A, D
    const float *cosines, *sines;  // [N, D/2]

    // Where token n of sample b has head a in a head-major tensor.
    __device__ int64_t row(int64_t b, int64_t n, int64_t a) const {
        return ((b * heads + a) * tokens + n) * width;
    }
};

// plain = relu(rms_norm(x)), turned = its rotation, head-major. A block a token.
template <class T>
__global__ void features_kernel(Rows<T> x, const T* weight, float eps, T* plain, T* turned, Heads h) {
    int64_t token = blockIdx.x, cols = h.heads * h.width, b = token / h.tokens, n = token % h.tokens;
    const T* in = x.data + token * x.stride;
    float squares = 0;
    for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) squares += to_float(in[c]) * to_float(in[c]);
    float scaling = rsqrtf(block_sum(squares) / static_cast<float>(cols) + eps);
    for (int64_t pair = threadIdx.x; pair < cols / 2; pair += blockDim.x) {
        int64_t c = 2 * pair, j = pair % (h.width / 2);
        float x0 = fmaxf(to_float(in[c]) * scaling * to_float(weight[c]), 0.0f);
        float x1 = fmaxf(to_float(in[c + 1]) * scaling * to_float(weight[c + 1]), 0.0f);
        float cosine = h.cosines[n * (h.width / 2) + j], sine = h.sines[n * (h.width / 2) + j];
        int64_t at = h.row(b, n, c / h.width) + c % h.width;
        float kept[2] = {x0, x1}, rotated[2] = {x0 * cosine - x1 * sine, x0 * sine + x1 * cosine};
        store<2>(plain + at, kept);
        store<2>(turned + at, rotated);
    }
}

// [B,N,A*D] -> [B,A,N,D]
template <class T>
__global__ void by_head_kernel(Rows<T> x, T* y, Heads h, int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, cols = h.heads * h.width;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        int64_t token = i / cols, c = i - token * cols;
        y[h.row(token / h.tokens, token % h.tokens, c / h.width) + c % h.width] =
            x.data[token * x.stride + c];
    }
}

// The sum over tokens of plain, each times its weight (null: 1); a block a part of one head's tokens.
template <class T>
__global__ void head_sum_kernel(const T* plain, const float* weights, float* partial, int64_t tokens,
                                int64_t width, int64_t per_part) {
    int64_t head = blockIdx.x, first = blockIdx.y * per_part, last = min(first + per_part, tokens);
    for (int64_t d = threadIdx.x; d < width; d += blockDim.x) {
        float sum = 0;
        for (int64_t n = first; n < last; ++n) {
            float value = to_float(plain[(head * tokens + n) * width + d]);
            sum += weights == nullptr ? value : value * weights[head * tokens + n];
        }
        partial[(head * gridDim.y + blockIdx.y) * width + d] = sum;
    }
}

// g = dy / D and e, head-major; Sq = S q~. A warp a token and head.
template <class T>
__global__ void normalise_kernel(Rows<T> dy, const T* plain, const T* Sq, const float* s, float eps, T* g,
                                 float* e, Heads h, int64_t count) {
    int64_t task = blockIdx.x * static_cast<int64_t>(blockDim.x / 32) + threadIdx.x / 32;
    if (task >= count) return;
    int64_t head = task / h.tokens, n = task % h.tokens, b = head / h.heads, a = head % h.heads;
    const T* out = dy.data + (b * h.tokens + n) * dy.stride + a * h.width;
    int lane = static_cast<int>(threadIdx.x) % 32;
    float normaliser = 0, dot = 0;
    for (int64_t d = lane; d < h.width; d += 32) {
        normaliser += to_float(plain[task * h.width + d]) * s[head * h.width + d];
        dot += to_float(out[d]) * to_float(Sq[task * h.width + d]);
    }
    float inverse = 1 / (warp_sum(normaliser) + eps);
    dot = warp_sum(dot);
    for (int64_t d = lane; d < h.width; d += 32)
        g[task * h.width + d] = from_float<T>(to_float(out[d]) * inverse);
    if (lane == 0) e[task] = -dot * inverse * inverse;
}

// The gradient before the ReLU: turned back, plus weight * sums (weights null: 1), where the ReLU passed. A thread a pair.
template <class T>
__global__ void turn_back_kernel(const T* turned, const T* plain, const float* weights, const float* sums,
                                 T* y, int64_t y_stride, Heads h, int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, pairs = h.width / 2;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        int64_t row = i / (h.heads * pairs), c = i % (h.heads * pairs), a = c / pairs, j = c % pairs;
        int64_t b = row / h.tokens, n = row % h.tokens, head = b * h.heads + a;
        int64_t at = h.row(b, n, a) + 2 * j;
        float x[2], kept[2], out[2];
        load<2>(turned + at, x);
        load<2>(plain + at, kept);
        float cosine = h.cosines[n * pairs + j], sine = h.sines[n * pairs + j];
        float weight = weights == nullptr ? 1.0f : weights[head * h.tokens + n];
        const float* sum = sums + head * h.width + 2 * j;
        out[0] = kept[0] > 0 ? x[0] * cosine + x[1] * sine + weight * sum[0] : 0.0f;
        out[1] = kept[1] > 0 ? x[1] * cosine - x[0] * sine + weight * sum[1] : 0.0f;
        store<2>(y + row * y_stride + a * h.width + 2 * j, out);
    }
}

// [B,A,N,D] -> [B,N,A*D]
template <class T>
__global__ void by_token_kernel(const T* x, T* y, int64_t y_stride, Heads h, int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, cols = h.heads * h.width;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        int64_t row = i / cols, c = i - row * cols;
        y[row * y_stride + c] = x[h.row(row / h.tokens, row % h.tokens, c / h.width) + c % h.width];
    }
}

template <class T>
class Backward {
public:
    explicit Backward(const LinearAttentionGradArgs& args) : args_(args) {
        const LinearAttentionOptions& o = args.options;
        batch_ = args.q.dim(0);
        heads_ = {args.q.dim(1), o.heads, args.q.dim(2) / o.heads, pointer<float>(o.rope.cos),
                  pointer<float>(o.rope.sin)};
        count_ = batch_ * heads_.heads;
        stream_ = stream_of(args.q.device());
    }

    void run() {
        const LinearAttentionOptions& o = args_.options;
        Tensor k_plain = rows(), k_turned = rows(), v = rows();
        features(args_.k, o.k_norm, k_plain, k_turned);
        by_head(args_.v, v);
        Tensor S = sum_of_products(v, k_turned), s = head_sums(k_plain, nullptr);

        Tensor q_plain = rows(), q_turned = rows(), g = rows();
        Tensor e = empty({count_ * heads_.tokens}, DType::F32, args_.q.device());
        features(args_.q, o.q_norm, q_plain, q_turned);
        {
            Tensor Sq = times(q_turned, S, false);
            int64_t tasks = count_ * heads_.tokens;
            normalise_kernel<T><<<static_cast<unsigned>((tasks + 7) / 8), 256, 0, stream_>>>(
                rows_of<T>(args_.dy), pointer<T>(q_plain), pointer<T>(Sq), pointer<float>(s), o.eps,
                pointer<T>(g), pointer<float>(e), heads_, tasks);
        }
        turn_back(times(g, S, true), q_plain, pointer<float>(e), s, args_.dq_normal);
        Tensor dS = sum_of_products(g, q_turned), ds = head_sums(q_plain, pointer<float>(e));

        Tensor dv = times(k_turned, dS, false);
        int64_t elements = args_.dv.numel();
        by_token_kernel<T><<<grid_for(elements, 256), 256, 0, stream_>>>(
            pointer<T>(dv), pointer<T>(args_.dv), args_.dv.row_stride(), heads_, elements);
        turn_back(times(v, dS, true), k_plain, nullptr, ds, args_.dk_normal);
        check_launch("linear_attention", args_.q.device());
    }

private:
    Tensor rows() const {
        return empty({count_, heads_.tokens, heads_.width}, args_.q.dtype(), args_.q.device());
    }

    void features(const Tensor& x, const Tensor& norm, Tensor& plain, Tensor& turned) {
        features_kernel<T><<<static_cast<unsigned>(x.rows()), 256, 0, stream_>>>(
            rows_of<T>(x), pointer<T>(norm), args_.options.norm_eps, pointer<T>(plain), pointer<T>(turned),
            heads_);
    }

    void by_head(const Tensor& x, Tensor& y) {
        by_head_kernel<T>
            <<<grid_for(y.numel(), 256), 256, 0, stream_>>>(rows_of<T>(x), pointer<T>(y), heads_, y.numel());
    }

    Product base() const {
        Product p;
        p.dtype = p.y_dtype = args_.q.dtype();
        p.device = args_.q.device();
        p.batch = count_;
        return p;
    }

    // [A,D,D]: sum over tokens of a b^T
    Tensor sum_of_products(const Tensor& a, const Tensor& b) {
        int64_t n = heads_.tokens, d = heads_.width;
        Tensor y = empty({count_, d, d}, args_.q.dtype(), args_.q.device());
        Product p = base();
        p.M = p.N = d;
        p.K = n;
        p.x = {a.raw(), d};
        p.w = {b.raw(), d};
        p.y = {y.raw(), d};
        p.x_transposed = p.w_transposed = true;
        p.x_batch = p.w_batch = n * d;
        p.y_batch = d * d;
        product(p);
        return y;
    }

    // Every row x becomes S x, or S^T x.
    Tensor times(const Tensor& x, const Tensor& S, bool transposed) {
        int64_t n = heads_.tokens, d = heads_.width;
        Tensor y = rows();
        Product p = base();
        p.M = n;
        p.N = p.K = d;
        p.x = {x.raw(), d};
        p.w = {S.raw(), d};
        p.y = {y.raw(), d};
        p.w_transposed = transposed;
        p.x_batch = p.y_batch = n * d;
        p.w_batch = d * d;
        product(p);
        return y;
    }

    Tensor head_sums(const Tensor& plain, const float* weights) {
        int64_t parts = std::clamp<int64_t>(heads_.tokens / 128, 1, 64),
                per_part = (heads_.tokens + parts - 1) / parts;
        Tensor partial = empty({count_, parts, heads_.width}, DType::F32, plain.device());
        Tensor sums = empty({count_, heads_.width}, DType::F32, plain.device());
        dim3 grid(static_cast<unsigned>(count_), static_cast<unsigned>(parts));
        head_sum_kernel<T><<<grid, 128, 0, stream_>>>(pointer<T>(plain), weights, pointer<float>(partial),
                                                      heads_.tokens, heads_.width, per_part);
        sum_parts(partial, parts, sums);
        return sums;
    }

    void turn_back(const Tensor& turned, const Tensor& plain, const float* weights, const Tensor& sums,
                   Tensor& y) {
        int64_t pairs = y.numel() / 2;
        turn_back_kernel<T><<<grid_for(pairs, 256), 256, 0, stream_>>>(
            pointer<T>(turned), pointer<T>(plain), weights, pointer<float>(sums), pointer<T>(y),
            y.row_stride(), heads_, pairs);
    }

    const LinearAttentionGradArgs& args_;
    int64_t batch_, count_;
    Heads heads_;
    cudaStream_t stream_;
};

}  // namespace

void linear_attention_grad(const LinearAttentionGradArgs& args) {
    if (args.q.numel() == 0 || linear_attention_grad_by_heads(args)) return;
    dispatch_cuda("linear_attention", args.q.dtype(), [&]<class T>() { Backward<T>(args).run(); });
}

}  // namespace sana::cuda
