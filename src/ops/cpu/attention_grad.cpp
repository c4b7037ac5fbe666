// Derivatives of both attentions, a (sample, head) at a time in plain loops.
#include <cmath>
#include <limits>
#include <vector>

#include "core/parallel.h"
#include "ops/cpu/gradients.h"

namespace sana::cpu {

// With p = softmax weights: dv_j += p_ij dy_i; ds_ij = p_ij (dy_i . v_j - sum_j p_ij dy_i . v_j), through the cap
// c tanh(s / c) by 1 - tanh^2; dq_i += scale ds_ij k_j, dk_j += scale ds_ij q_i.
void attention_grad(const AttentionGradArgs& args) {
    dispatch_fp32_fp64("attention", args.q.dtype(), [&]<class T>() {
        const AttentionOptions& o = args.options;
        int64_t batch = args.q.dim(0), queries = args.q.dim(1), keys = args.k.dim(1);
        int64_t width = args.q.dim(2) / o.heads, share = o.heads / o.kv_heads;
        std::fill_n(args.dk.data<T>(), args.dk.numel(), T(0));
        std::fill_n(args.dv.data<T>(), args.dv.numel(), T(0));
        // A key head's gradients belong to one task.
        parallel_for(batch * o.kv_heads, queries * keys * width * share, [&](int64_t task) {
            int64_t b = task / o.kv_heads, e = task % o.kv_heads;
            std::vector<T> weight(static_cast<size_t>(keys)), slope(static_cast<size_t>(keys)),
                dp(static_cast<size_t>(keys));
            auto row = [&](const Tensor& x, int64_t n, int64_t i, int64_t head) {
                return x.data<T>() + (b * n + i) * x.row_stride() + head * width;
            };
            for (int64_t a = e * share; a < (e + 1) * share; ++a) {
                for (int64_t i = 0; i < queries; ++i) {
                    const T* q = row(args.q, queries, i, a);
                    const T* dy = row(args.dy, queries, i, a);
                    T* dq = row(args.dq, queries, i, a);
                    std::fill(dq, dq + width, T(0));
                    T best = -std::numeric_limits<T>::infinity(), sum = 0, mean = 0;
                    auto allowed = [&](int64_t j) {
                        return (!o.causal || j <= i) && (o.window == 0 || i - j < o.window) &&
                               (!args.mask.defined() || args.mask.data<int32_t>()[b * keys + j] != 0);
                    };
                    for (int64_t j = 0; j < keys; ++j) {
                        if (!allowed(j)) continue;
                        const T* k = row(args.k, keys, j, e);
                        T score = 0;
                        for (int64_t d = 0; d < width; ++d) score += q[d] * k[d];
                        score *= static_cast<T>(o.scale);
                        T t = o.soft_cap > 0 ? std::tanh(score / static_cast<T>(o.soft_cap)) : T(0);
                        weight[static_cast<size_t>(j)] =
                            o.soft_cap > 0 ? static_cast<T>(o.soft_cap) * t : score;
                        slope[static_cast<size_t>(j)] = 1 - t * t;
                        best = std::max(best, weight[static_cast<size_t>(j)]);
                    }
                    for (int64_t j = 0; j < keys; ++j) {
                        if (!allowed(j)) continue;
                        weight[static_cast<size_t>(j)] = std::exp(weight[static_cast<size_t>(j)] - best);
                        sum += weight[static_cast<size_t>(j)];
                    }
                    for (int64_t j = 0; j < keys; ++j) {
                        if (!allowed(j)) continue;
                        T& p = weight[static_cast<size_t>(j)];
                        p /= sum;
                        const T* v = row(args.v, keys, j, e);
                        T* dv = row(args.dv, keys, j, e);
                        T dot = 0;
                        for (int64_t d = 0; d < width; ++d) {
                            dot += dy[d] * v[d];
                            dv[d] += p * dy[d];
                        }
                        dp[static_cast<size_t>(j)] = dot;
                        mean += p * dot;
                    }
                    for (int64_t j = 0; j < keys; ++j) {
                        if (!allowed(j)) continue;
                        size_t at = static_cast<size_t>(j);
                        T ds = weight[at] * (dp[at] - mean) * slope[at] * static_cast<T>(o.scale);
                        const T* k = row(args.k, keys, j, e);
                        T* dk = row(args.dk, keys, j, e);
                        for (int64_t d = 0; d < width; ++d) {
                            dq[d] += ds * k[d];
                            dk[d] += ds * q[d];
                        }
                    }
                }
            }
        });
    });
}

namespace {

template <class T>
std::vector<T> row_scales(const Tensor& x, float eps) {
    std::vector<T> scales(static_cast<size_t>(x.rows()));
    for (int64_t r = 0; r < x.rows(); ++r) {
        const T* row = x.data<T>() + r * x.row_stride();
        T sum = 0;
        for (int64_t c = 0; c < x.cols(); ++c) sum += row[c] * row[c];
        scales[static_cast<size_t>(r)] = 1 / std::sqrt(sum / static_cast<T>(x.cols()) + static_cast<T>(eps));
    }
    return scales;
}

// The rotation of adjacent pairs; direction -1 turns back.
template <class T>
void rotate(const Rope& rope, int64_t token, const T* in, T* out, int64_t width, T direction) {
    for (int64_t j = 0; j < width / 2; ++j) {
        T c = static_cast<T>(rope.cos.data<float>()[token * (width / 2) + j]);
        T s = direction * static_cast<T>(rope.sin.data<float>()[token * (width / 2) + j]);
        T x0 = in[2 * j], x1 = in[2 * j + 1];
        out[2 * j] = x0 * c - x1 * s;
        out[2 * j + 1] = x0 * s + x1 * c;
    }
}

}  // namespace

// o = S q~ / D, D = q' . s + eps, S = sum v k~^T, s = sum k'. With g = dy / D and e = -(dy . o) / D:
//   dq~ = S^T g, dq' += e s;  dS = sum g q~^T, ds = sum e q';  dv = dS k~, dk~ = dS^T v, dk' += ds;
// ~ turns back to ', and ' passes where the ReLU did.
void linear_attention_grad(const LinearAttentionGradArgs& args) {
    dispatch_fp32_fp64("linear_attention", args.q.dtype(), [&]<class T>() {
        const LinearAttentionOptions& o = args.options;
        int64_t batch = args.q.dim(0), tokens = args.q.dim(1), width = args.q.dim(2) / o.heads;
        std::vector<T> q_scales = row_scales<T>(args.q, o.norm_eps),
                       k_scales = row_scales<T>(args.k, o.norm_eps);
        parallel_for(batch * o.heads, tokens * width * width * 6, [&](int64_t task) {
            int64_t b = task / o.heads, column = task % o.heads * width;
            size_t square = static_cast<size_t>(width * width), line = static_cast<size_t>(width);
            std::vector<T> S(square, T(0)), dS(square, T(0)), s(line, T(0)), ds(line, T(0));
            std::vector<T> plain(line), turned(line), g(line), back(line), normal(line);
            // plain = relu(norm(x)), turned = its rotation.
            auto features = [&](const Tensor& x, const std::vector<T>& scales, const Tensor& weight,
                                int64_t i) {
                int64_t r = b * tokens + i;
                const T* in = x.data<T>() + r * x.row_stride() + column;
                for (int64_t d = 0; d < width; ++d) {
                    T value = in[d] * scales[static_cast<size_t>(r)] * weight.data<T>()[column + d];
                    plain[static_cast<size_t>(d)] = value > 0 ? value : T(0);
                }
                rotate<T>(o.rope, i, plain.data(), turned.data(), width, T(1));
            };
            for (int64_t i = 0; i < tokens; ++i) {
                features(args.k, k_scales, o.k_norm, i);
                const T* v = args.v.data<T>() + (b * tokens + i) * args.v.row_stride() + column;
                for (int64_t r = 0; r < width; ++r) {
                    for (int64_t c = 0; c < width; ++c)
                        S[static_cast<size_t>(r * width + c)] += v[r] * turned[static_cast<size_t>(c)];
                    s[static_cast<size_t>(r)] += plain[static_cast<size_t>(r)];
                }
            }
            for (int64_t i = 0; i < tokens; ++i) {
                features(args.q, q_scales, o.q_norm, i);
                const T* dy = args.dy.data<T>() + (b * tokens + i) * args.dy.row_stride() + column;
                T normaliser = static_cast<T>(o.eps), e = 0;
                for (size_t d = 0; d < line; ++d) normaliser += plain[d] * s[d];
                for (int64_t r = 0; r < width; ++r) {
                    T sum = 0;
                    for (int64_t c = 0; c < width; ++c)
                        sum += S[static_cast<size_t>(r * width + c)] * turned[static_cast<size_t>(c)];
                    g[static_cast<size_t>(r)] = dy[r] / normaliser;
                    e -= g[static_cast<size_t>(r)] * sum / normaliser;
                }
                std::fill(back.begin(), back.end(), T(0));
                for (int64_t r = 0; r < width; ++r) {
                    for (int64_t c = 0; c < width; ++c) {
                        size_t at = static_cast<size_t>(r * width + c);
                        back[static_cast<size_t>(c)] += S[at] * g[static_cast<size_t>(r)];
                        dS[at] += g[static_cast<size_t>(r)] * turned[static_cast<size_t>(c)];
                    }
                }
                rotate<T>(o.rope, i, back.data(), normal.data(), width, T(-1));
                T* dq = args.dq_normal.data<T>() + (b * tokens + i) * args.dq_normal.row_stride() + column;
                for (size_t d = 0; d < line; ++d) {
                    ds[d] += e * plain[d];
                    dq[d] = plain[d] > 0 ? normal[d] + e * s[d] : T(0);
                }
            }
            for (int64_t i = 0; i < tokens; ++i) {
                features(args.k, k_scales, o.k_norm, i);
                const T* v = args.v.data<T>() + (b * tokens + i) * args.v.row_stride() + column;
                T* dv = args.dv.data<T>() + (b * tokens + i) * args.dv.row_stride() + column;
                std::fill(back.begin(), back.end(), T(0));
                for (int64_t r = 0; r < width; ++r) {
                    T sum = 0;
                    for (int64_t c = 0; c < width; ++c) {
                        size_t at = static_cast<size_t>(r * width + c);
                        sum += dS[at] * turned[static_cast<size_t>(c)];
                        back[static_cast<size_t>(c)] += dS[at] * v[r];
                    }
                    dv[r] = sum;
                }
                rotate<T>(o.rope, i, back.data(), normal.data(), width, T(-1));
                T* dk = args.dk_normal.data<T>() + (b * tokens + i) * args.dk_normal.row_stride() + column;
                for (size_t d = 0; d < line; ++d) dk[d] = plain[d] > 0 ? normal[d] + ds[d] : T(0);
            }
        });
    });
}

}  // namespace sana::cpu
