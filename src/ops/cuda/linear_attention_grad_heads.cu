// The derivative of linear_attention (its formulas: linear_attention_grad.cu) where there are heads enough to fill the device:
// bf16, heads of 32 channels, a block a head, one kernel in place of seventeen. Three walks over the head's tokens, 16 at a
// time by each of four warps, whose sums of products stay in registers: S and s; g, e, dq, dS and ds; dk and dv.
#include "ops/cuda/device/derivative.cuh"
#include "ops/cuda/device/head_tiles.cuh"
#include "ops/cuda/device/linear_attention.cuh"
#include "ops/cuda/gradients.h"

namespace sana::cuda {

namespace {

using namespace heads;

constexpr int kWarps = 4, kThreads = 32 * kWarps;

struct Problem {
    Rows<bf16_t> q, k, v, dy;
    const bf16_t *q_weight, *k_weight;
    const float *q_scales, *k_scales;  // [B*N]: 1 / rms
    const float *cosines, *sines;      // [N, 16]
    bf16_t *dq, *dk, *dv;
    int64_t dq_stride, dk_stride, dv_stride;
    int tokens, heads;
    float eps;
};

// What a walk reads of a token: its channels of two tensors, zeros behind the last token.
struct Token {
    Half x, other;
    float scale;
};

struct Shared {
    union {
        uint8_t tiles[kWarps][3][kTile];
        float squares[kWarps][kWidth][kWidth + 1];
    };
    uint8_t S[kWidth * kPitch], dS[kWidth * kPitch];
    float vectors[kWarps][kWidth], s[kWidth], ds[kWidth];
    float inverse[kWarps][kRows];
};

class Head {
public:
    __device__ Head(const Problem& p, Shared& shared)
        : p_(p),
          shared_(shared),
          lane_(static_cast<int>(threadIdx.x) % 32),
          warp_(static_cast<int>(threadIdx.x) / 32),
          row_(lane_ / 2),
          channel_(lane_ % 2 * kHalf),
          first_(static_cast<int64_t>(blockIdx.x) / p.heads * p.tokens),
          column_(static_cast<int64_t>(blockIdx.x) % p.heads * kWidth + channel_) {
        for (int i = 0; i < 3; ++i)
            tile_[i] = static_cast<uint32_t>(__cvta_generic_to_shared(shared.tiles[warp_][i]));
        S_ = static_cast<uint32_t>(__cvta_generic_to_shared(shared.S));
        dS_ = static_cast<uint32_t>(__cvta_generic_to_shared(shared.dS));
    }

    __device__ void run() {
        sum_state();
        query_walk();
        key_walk();
    }

private:
    // f(first token of 16, what this lane has of them), what comes next being read meanwhile.
    template <class F>
    __device__ __forceinline__ void walk(const Rows<bf16_t>& x, const float* scales,
                                         const Rows<bf16_t>& other, F f) const {
        auto fetch = [&](int start) {
            Token t{};
            int64_t token = start + row_;
            if (token < p_.tokens) {
                t.x = read(x.data + (first_ + token) * x.stride + column_);
                t.other = read(other.data + (first_ + token) * other.stride + column_);
                t.scale = scales[first_ + token];
            }
            return t;
        };
        Token next = fetch(warp_ * kRows);
        for (int start = warp_ * kRows; start < p_.tokens; start += kWarps * kRows) {
            Token now = next;
            next = fetch(start + kWarps * kRows);
            f(start, now);
        }
    }

    // relu(norm) of this lane's channels and its rotation, in pairs; a call of f(pair, first, second) for the former.
    template <class F>
    __device__ __forceinline__ void features(const Token& t, const Half& weight, int start, Half& plain,
                                             Half& turned, F f) const {
        int token = min(start + row_, p_.tokens - 1);
        const float *cosines = p_.cosines + token * kHalf + channel_ / 2,
                    *sines = p_.sines + token * kHalf + channel_ / 2;
        float cosine[8], sine[8];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            *reinterpret_cast<float4*>(cosine + 4 * i) = reinterpret_cast<const float4*>(cosines)[i];
            *reinterpret_cast<float4*>(sine + 4 * i) = reinterpret_cast<const float4*>(sines)[i];
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            float2 x = unpack<bf16_t>(word(t.x, i)), w = unpack<bf16_t>(word(weight, i));
            float x0 = fmaxf(x.x * t.scale * w.x, 0.0f), x1 = fmaxf(x.y * t.scale * w.y, 0.0f);
            set_word(plain, i, pack<bf16_t>(x0, x1));
            set_word(turned, i, pack<bf16_t>(x0 * cosine[i] - x1 * sine[i], x0 * sine[i] + x1 * cosine[i]));
            f(i, x0, x1);
        }
    }

    __device__ __forceinline__ void put(int tile, const Half& x) const {
        write(shared_.tiles[warp_][tile] + row_ * kPitch + channel_ * 2, x);
    }
    __device__ __forceinline__ uint32_t* pair_at(int tile, int row, int n) const {
        return reinterpret_cast<uint32_t*>(shared_.tiles[warp_][tile] + row * kPitch + n * 16 +
                                           lane_ % 4 * 4);
    }

    // The sums over the warps, in their order, of sums [32,32], rounded, and of the vectors that they have put down.
    __device__ void reduce(const Square& sums, uint8_t* square, float* vector) const {
        __syncthreads();  // tiles are read to here
#pragma unroll
        for (int m = 0; m < 2; ++m)
#pragma unroll
            for (int n = 0; n < 4; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    shared_.squares[warp_][m * 16 + lane_ / 4 + e / 2 * 8][n * 8 + lane_ % 4 * 2 + e % 2] =
                        sums[m][n][e];
        __syncthreads();
        for (int at = static_cast<int>(threadIdx.x); at < kWidth * kWidth; at += kThreads) {
            float sum = 0;
#pragma unroll
            for (int w = 0; w < kWarps; ++w) sum += shared_.squares[w][at / kWidth][at % kWidth];
            reinterpret_cast<bf16_t*>(square + at / kWidth * kPitch)[at % kWidth] = from_float<bf16_t>(sum);
        }
        if (threadIdx.x < kWidth) {
            float sum = 0;
#pragma unroll
            for (int w = 0; w < kWarps; ++w) sum += shared_.vectors[w][threadIdx.x];
            vector[threadIdx.x] = sum;
        }
        __syncthreads();
    }

    __device__ void sum_state() {
        Half weight = read(p_.k_weight + column_);
        Square sums = {};
        float plain_sums[kHalf] = {};
        walk(p_.k, p_.k_scales, p_.v, [&](int start, const Token& t) {
            Half plain, turned;
            features(t, weight, start, plain, turned, [&](int i, float x0, float x1) {
                plain_sums[2 * i] += x0;
                plain_sums[2 * i + 1] += x1;
            });
            put(0, turned);
            put(1, t.other);
            __syncwarp();
            add_products(sums, tile_[1], tile_[0], lane_);
            __syncwarp();
        });
#pragma unroll
        for (int i = 0; i < kHalf; ++i) {
            float x = plain_sums[i];
#pragma unroll
            for (int offset = 2; offset < 32; offset *= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
            if (row_ == 0) shared_.vectors[warp_][channel_ + i] = x;
        }
        reduce(sums, shared_.S, shared_.s);
    }

    // Gradients of features, turned back, plus weight * sums, where the ReLU passed; they replace `plain` in its tile.
    // seen(n, e, weight, plain): every element of the tile.
    template <class F>
    __device__ __forceinline__ void turn_back(const Sums& turned, int plain, int start,
                                              const float (&weight)[2], const float* sums, F seen) const {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
            int pair = n * 4 + lane_ % 4;
            float2 sum = *reinterpret_cast<const float2*>(sums + 2 * pair);
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                int row = lane_ / 4 + 8 * r, token = min(start + row, p_.tokens - 1);
                float cosine = p_.cosines[token * kHalf + pair], sine = p_.sines[token * kHalf + pair];
                float x0 = turned[n][2 * r], x1 = turned[n][2 * r + 1];
                uint32_t* at = pair_at(plain, row, n);
                float2 kept = unpack<bf16_t>(*at);
                seen(n, 0, weight[r], kept.x);
                seen(n, 1, weight[r], kept.y);
                // Each element is read and written by this lane alone.
                *at = pack<bf16_t>(kept.x > 0 ? x0 * cosine + x1 * sine + weight[r] * sum.x : 0.0f,
                                   kept.y > 0 ? x1 * cosine - x0 * sine + weight[r] * sum.y : 0.0f);
            }
        }
    }

    __device__ __forceinline__ void store_tile(int tile, int start, bf16_t* to, int64_t stride) const {
        if (start + row_ >= p_.tokens) return;
        auto* from =
            reinterpret_cast<const uint4*>(shared_.tiles[warp_][tile] + row_ * kPitch + channel_ * 2);
        write(to + (first_ + start + row_) * stride + column_, {from[0], from[1]});
    }

    __device__ void query_walk() {
        Half weight = read(p_.q_weight + column_);
        Square sums = {};
        float weighted[4][2] = {};
        walk(p_.q, p_.q_scales, p_.dy, [&](int start, const Token& t) {
            Half plain, turned, g;
            float normaliser = 0;
            features(t, weight, start, plain, turned, [&](int i, float x0, float x1) {
                float2 s = *reinterpret_cast<const float2*>(shared_.s + channel_ + 2 * i);
                normaliser += x0 * s.x + x1 * s.y;
            });
            normaliser += __shfl_xor_sync(0xffffffffu, normaliser, 1);
            float inverse = start + row_ < p_.tokens ? 1 / (normaliser + p_.eps) : 0.0f;
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                float2 out = unpack<bf16_t>(word(t.other, i));
                set_word(g, i, pack<bf16_t>(out.x * inverse, out.y * inverse));
            }
            put(0, turned);
            put(1, g);
            put(2, plain);
            if (channel_ == 0) shared_.inverse[warp_][row_] = inverse;
            __syncwarp();
            Sums product;
            multiply<false>(product, tile_[0], S_, lane_);
            float e[2];
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                float dot = 0;
#pragma unroll
                for (int n = 0; n < 4; ++n) {
                    float2 out = unpack<bf16_t>(*pair_at(1, lane_ / 4 + 8 * r, n));
                    dot += out.x * product[n][2 * r] + out.y * product[n][2 * r + 1];
                }
                dot += __shfl_xor_sync(0xffffffffu, dot, 1);
                dot += __shfl_xor_sync(0xffffffffu, dot, 2);
                e[r] = -dot * shared_.inverse[warp_][lane_ / 4 + 8 * r];
            }
            multiply<true>(product, tile_[1], S_, lane_);
            add_products(sums, tile_[1], tile_[0], lane_);
            turn_back(product, 2, start, e, shared_.s,
                      [&](int n, int i, float factor, float kept) { weighted[n][i] += factor * kept; });
            __syncwarp();
            store_tile(2, start, p_.dq, p_.dq_stride);
            __syncwarp();
        });
#pragma unroll
        for (int n = 0; n < 4; ++n) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                float x = weighted[n][i];
#pragma unroll
                for (int offset = 4; offset < 32; offset *= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
                if (lane_ < 4) shared_.vectors[warp_][n * 8 + lane_ * 2 + i] = x;
            }
        }
        reduce(sums, shared_.dS, shared_.ds);
    }

    __device__ void key_walk() {
        Half weight = read(p_.k_weight + column_);
        walk(p_.k, p_.k_scales, p_.v, [&](int start, const Token& t) {
            Half plain, turned;
            features(t, weight, start, plain, turned, [](int, float, float) {});
            put(0, turned);
            put(1, t.other);
            put(2, plain);
            __syncwarp();
            Sums product;
            multiply<true>(product, tile_[1], dS_, lane_);
            const float ones[2] = {1, 1};
            turn_back(product, 2, start, ones, shared_.ds, [](int, int, float, float) {});
            multiply<false>(product, tile_[0], dS_, lane_);
            __syncwarp();
#pragma unroll
            for (int n = 0; n < 4; ++n) {
#pragma unroll
                for (int r = 0; r < 2; ++r)
                    *pair_at(0, lane_ / 4 + 8 * r, n) =
                        pack<bf16_t>(product[n][2 * r], product[n][2 * r + 1]);
            }
            __syncwarp();
            store_tile(2, start, p_.dk, p_.dk_stride);
            store_tile(0, start, p_.dv, p_.dv_stride);
            __syncwarp();
        });
    }

    const Problem& p_;
    Shared& shared_;
    int lane_, warp_, row_, channel_;
    int64_t first_, column_;
    uint32_t tile_[3], S_, dS_;
};

__global__ void __launch_bounds__(kThreads, 4) heads_kernel(const __grid_constant__ Problem p) {
    __shared__ __align__(16) Shared shared;
    Head(p, shared).run();
}

}  // namespace

bool linear_attention_grad_by_heads(const LinearAttentionGradArgs& args) {
    const LinearAttentionOptions& o = args.options;
    int64_t batch = args.q.dim(0), tokens = args.q.dim(1), channels = args.q.dim(2), heads = batch * o.heads;
    // A block walks over its tokens alone: with fewer heads, or many more tokens, the products of all heads fill the device
    // better.
    bool fits = args.q.dtype() == DType::BF16 && channels / o.heads == kWidth && heads >= 64 &&
                tokens <= 64 * heads && heads < INT32_MAX && o.rope.cos.row_stride() == kHalf &&
                o.rope.sin.row_stride() == kHalf;
    for (const Tensor& x : {args.q, args.k, args.v, args.dy, args.dq_normal, args.dk_normal, args.dv})
        fits = fits && vectors_fit(x);
    for (const Tensor* x : {&o.q_norm, &o.k_norm, &o.rope.cos, &o.rope.sin})
        fits = fits && reinterpret_cast<uintptr_t>(x->raw()) % 16 == 0;
    if (!fits) return false;
    Device device = args.q.device();
    Tensor scales = row_scales<bf16_t>(args.q, args.k, o.norm_eps, 2);
    Problem p{rows_of<bf16_t>(args.q),
              rows_of<bf16_t>(args.k),
              rows_of<bf16_t>(args.v),
              rows_of<bf16_t>(args.dy),
              pointer<bf16_t>(o.q_norm),
              pointer<bf16_t>(o.k_norm),
              pointer<float>(scales),
              pointer<float>(scales) + batch * tokens,
              pointer<float>(o.rope.cos),
              pointer<float>(o.rope.sin),
              pointer<bf16_t>(args.dq_normal),
              pointer<bf16_t>(args.dk_normal),
              pointer<bf16_t>(args.dv),
              args.dq_normal.row_stride(),
              args.dk_normal.row_stride(),
              args.dv.row_stride(),
              static_cast<int>(tokens),
              static_cast<int>(o.heads),
              o.eps};
    heads_kernel<<<static_cast<unsigned>(heads), kThreads, 0, stream_of(device)>>>(p);
    check_launch("linear_attention", device);
    return true;
}

}  // namespace sana::cuda
