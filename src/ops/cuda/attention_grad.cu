// The derivative of attention: scores and their gradients are written out for as many heads at a time as fit kChunkBytes,
// everything head by head, [B,A,N,D], so that every sum is one batched product. With p = softmax weights:
//   dv_j = sum_i p_ij dy_i;  ds_ij = p_ij (dy_i . v_j - sum_j p_ij dy_i . v_j) through the cap;  dq = scale ds k,
//   dk = scale ds^T q.
#include "ops/cuda/device/derivative.cuh"
#include "ops/cuda/gemm.h"
#include "ops/cuda/gradients.h"
#include "ops/tape.h"

namespace sana::cuda {

namespace {

constexpr int64_t kChunkBytes = int64_t{2} << 30;

// Head-major copies; a key head is copied to each of the query heads that read it.
template <class T>
__global__ void heads_kernel(Rows<T> x, T* y, int64_t tokens, int64_t heads, int64_t share, int64_t width,
                             int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        int64_t d = i % width, n = i / width % tokens, a = i / width / tokens % heads,
                b = i / width / tokens / heads;
        y[i] = x.data[(b * tokens + n) * x.stride + a / share * width + d];
    }
}

// And back; the copies of a key head are added up.
template <class T>
__global__ void tokens_kernel(const T* x, T* y, int64_t tokens, int64_t heads, int64_t share, int64_t width,
                              int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, kept = heads / share;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        int64_t d = i % width, e = i / width % kept, n = i / width / kept % tokens,
                b = i / width / kept / tokens;
        float sum = 0;
        for (int64_t s = 0; s < share; ++s)
            sum += to_float(x[((b * heads + e * share + s) * tokens + n) * width + d]);
        y[i] = from_float<T>(sum);
    }
}

struct Softmax {
    const int32_t* mask;                   // [B,L] or null
    int64_t queries, keys, stride, heads;  // stride: between rows of weights and dscores
    float scale, cap;
    bool causal;
    int64_t window;
};

// From scores q . k and dy . v of one query to its weights and the gradients of scores, times scale. A block a query.
template <class T>
__global__ void softmax_kernel(const float* scores, const float* dweights, T* weights, T* dscores, Softmax s,
                               int64_t first_head) {
    int64_t row = blockIdx.x, query = row % s.queries, b = (row / s.queries + first_head) / s.heads;
    const float *in = scores + row * s.keys, *dw = dweights + row * s.keys;
    const int32_t* kept = s.mask == nullptr ? nullptr : s.mask + b * s.keys;
    auto allowed = [&](int64_t j) {
        return (!s.causal || j <= query) && (s.window == 0 || query - j < s.window) &&
               (kept == nullptr || kept[j] != 0);
    };
    auto capped = [&](float x) { return s.cap > 0 ? s.cap * tanhf(x * s.scale / s.cap) : x * s.scale; };
    __shared__ float largest[32];
    float best = -INFINITY;
    for (int64_t j = threadIdx.x; j < s.keys; j += blockDim.x) {
        if (allowed(j)) best = fmaxf(best, capped(in[j]));
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2)
        best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, offset));
    if (threadIdx.x % 32 == 0) largest[threadIdx.x / 32] = best;
    __syncthreads();
    best = largest[0];
    for (int w = 1; w < static_cast<int>(blockDim.x) / 32; ++w) best = fmaxf(best, largest[w]);
    float sum = 0, mean = 0;
    for (int64_t j = threadIdx.x; j < s.keys; j += blockDim.x) {
        if (!allowed(j)) continue;
        float p = expf(capped(in[j]) - best);
        sum += p;
        mean += p * dw[j];
    }
    sum = block_sum(sum);
    mean = block_sum(mean) / sum;
    float inverse = sum > 0 ? 1 / sum : 0.0f;
    for (int64_t j = threadIdx.x; j < s.keys; j += blockDim.x) {
        float p = 0, d = 0;
        if (allowed(j)) {
            float value = capped(in[j]), t = s.cap > 0 ? value / s.cap : 0.0f;
            p = expf(value - best) * inverse;
            d = p * (dw[j] - mean) * (1 - t * t) * s.scale;
        }
        weights[row * s.stride + j] = from_float<T>(p);
        dscores[row * s.stride + j] = from_float<T>(d);
    }
}

template <class T>
class Backward {
public:
    explicit Backward(const AttentionGradArgs& args) : args_(args), device_(args.q.device()) {
        const AttentionOptions& o = args.options;
        heads_ = o.heads;
        width_ = args.q.dim(2) / o.heads;
        queries_ = args.q.dim(1);
        keys_ = args.k.dim(1);
        share_ = o.heads / o.kv_heads;
        count_ = args.q.dim(0) * o.heads;
    }

    void run() {
        Tensor q = by_head(args_.q, queries_, 1), dy = by_head(args_.dy, queries_, 1);
        Tensor k = by_head(args_.k, keys_, share_), v = by_head(args_.v, keys_, share_);
        Tensor dq = rows(queries_, count_), dk = rows(keys_, count_), dv = rows(keys_, count_);
        int64_t a_head = queries_ * (keys_ + 7) * (8 + 2 * size_of(args_.q.dtype()));
        int64_t chunk = std::clamp<int64_t>(kChunkBytes / a_head, 1, count_);
        for (int64_t first = 0; first < count_; first += chunk) {
            int64_t n = std::min(chunk, count_ - first);
            auto part = [&](const Tensor& x) { return x.outer_slice(first, n); };
            heads(part(q), part(k), part(v), part(dy), part(dq), part(dk), part(dv), first);
        }
        by_token(dq, args_.dq, queries_, 1);
        by_token(dk, args_.dk, keys_, share_);
        by_token(dv, args_.dv, keys_, share_);
    }

private:
    Tensor rows(int64_t tokens, int64_t count) const {
        return empty({count, tokens, width_}, args_.q.dtype(), device_);
    }

    Tensor by_head(const Tensor& x, int64_t tokens, int64_t share) const {
        Tensor y = rows(tokens, count_);
        heads_kernel<T><<<grid_for(y.numel(), 256), 256, 0, stream_of(device_)>>>(
            rows_of<T>(x), pointer<T>(y), tokens, heads_, share, width_, y.numel());
        check_launch("attention", device_);
        return y;
    }

    void by_token(const Tensor& x, Tensor& y, int64_t tokens, int64_t share) const {
        tokens_kernel<T><<<grid_for(y.numel(), 256), 256, 0, stream_of(device_)>>>(
            pointer<T>(x), pointer<T>(y), tokens, heads_, share, width_, y.numel());
        check_launch("attention", device_);
    }

    // y[M,N] = op(a) op(b) for every head.
    void multiply(const Tensor& a, bool a_transposed, const Tensor& b, bool b_transposed,
                  const Tensor& y) const {
        Product p;
        p.dtype = a.dtype();
        p.y_dtype = y.dtype();
        p.M = y.dim(1);
        p.N = y.dim(2);
        p.K = a_transposed ? a.dim(1) : a.dim(2);
        p.x = {a.raw(), a.row_stride()};
        p.w = {b.raw(), b.row_stride()};
        p.y = {y.raw(), y.row_stride()};
        p.device = device_;
        p.x_transposed = a_transposed;
        p.w_transposed = !b_transposed;
        p.batch = y.dim(0);
        p.x_batch = a.dim(1) * a.row_stride();
        p.w_batch = b.dim(1) * b.row_stride();
        p.y_batch = y.dim(1) * y.row_stride();
        product(p);
    }

    void heads(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& dy, const Tensor& dq,
               const Tensor& dk, const Tensor& dv, int64_t first) const {
        Shape square{q.dim(0), queries_, keys_};
        Tensor scores = empty(square, DType::F32, device_), dweights = empty(square, DType::F32, device_);
        // Rows that start at whole vectors: with 300 keys the products below take twice as long otherwise.
        Shape wide{q.dim(0), queries_, (keys_ + 7) / 8 * 8};
        Tensor weights = empty(wide, q.dtype(), device_).cols_slice(0, keys_),
               dscores = empty(wide, q.dtype(), device_).cols_slice(0, keys_);
        multiply(q, false, k, true, scores);
        multiply(dy, false, v, true, dweights);
        const AttentionOptions& o = args_.options;
        Softmax s{args_.mask.defined() ? pointer<int32_t>(args_.mask) : nullptr,
                  queries_,
                  keys_,
                  wide[2],
                  heads_,
                  o.scale,
                  o.soft_cap,
                  o.causal,
                  o.window};
        softmax_kernel<T><<<static_cast<unsigned>(q.dim(0) * queries_), 128, 0, stream_of(device_)>>>(
            pointer<float>(scores), pointer<float>(dweights), pointer<T>(weights), pointer<T>(dscores), s,
            first);
        check_launch("attention", device_);
        multiply(weights, true, dy, false, dv);
        multiply(dscores, false, k, false, dq);
        multiply(dscores, true, q, false, dk);
    }

    const AttentionGradArgs& args_;
    Device device_;
    int64_t heads_, width_, queries_, keys_, share_, count_;
};

}  // namespace

void attention_grad(const AttentionGradArgs& args) {
    if (args.q.numel() == 0 || args.k.numel() == 0 || attention_grad_by_mma(args)) return;
    dispatch_cuda("attention", args.q.dtype(), [&]<class T>() { Backward<T>(args).run(); });
}

}  // namespace sana::cuda
