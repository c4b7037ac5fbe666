// Linear attention on tensor cores: steps 2 to 4 of device/linear_attention.cuh for 16-bit storage.
// Precision: one rounding, that of y, is what a result may show. v is exact in its type; k~ goes into its product as two
// terms of that type (three when the state is a result). kv and q~ are scaled by powers of two, by row and by head, into the
// range of fp16 and rounded to its 11 bits, which is an eighth of the rounding of a bf16 result; for fp16 results both have
// two terms. Sums and normalisers are fp32.
// H200, 2026-12-01, bf16, B2 N32760 A20 D112: state 0.208 ms, apply 0.221, to E4M3 0.330; by the kernels for any card 0.338,
// 0.300. There bulk copies of rows (cp.async.bulk, 224 and 448 bytes each) in place of cp.async made the state 2.3 and the
// apply 1.5 times slower; boxes of 32 and 16 rows do not.
#include "ops/cuda/device/linear_attention_apply_sm90.cuh"
#include "ops/cuda/device/linear_attention_codes.cuh"
#include "ops/cuda/device/linear_attention_state_sm90.cuh"
#include "ops/cuda/hopper.h"

namespace sana::cuda {

namespace {

constexpr int kReduceRows = 16, kReduceThreads = 256;

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}

// A block: 16 channels of v (blockIdx.x) of head blockIdx.y.
template <class T, int Width, class State>
__global__ void __launch_bounds__(kReduceThreads)
    reduce_mma_kernel(const __grid_constant__ LinearAttentionProblem<T> p, TokenRanges ranges,
                      State* states) {
    __shared__ float tile[kReduceRows][Width + 1];
    int heads = static_cast<int>(gridDim.y), head = static_cast<int>(blockIdx.y),
        first = static_cast<int>(blockIdx.x) * kReduceRows, lane = threadIdx.x % 32;
    for (int item = threadIdx.x; item < Width * kReduceRows; item += kReduceThreads) {
        int j = item / kReduceRows, i = item % kReduceRows;
        float sum = 0;
#pragma unroll 4
        for (int r = 0; r < ranges.count; ++r) {
            sum += ranges.kv[((static_cast<int64_t>(r) * heads + head) * Width + j) * Width + first + i];
        }
        tile[i][j] = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x / 32; i < kReduceRows; i += kReduceThreads / 32) {
        int64_t at = (static_cast<int64_t>(head) * Width + first + i) * Width;
        float values[(Width + 31) / 32], largest = 0;
#pragma unroll
        for (int n = 0; n < (Width + 31) / 32; ++n) {
            int j = n * 32 + lane;
            if (j >= Width) continue;
            values[n] = tile[i][j];
            if (p.past_kv != nullptr) values[n] += p.past_kv[at + j];
            p.kv[at + j] = values[n];
            largest = fmaxf(largest, fabsf(values[n]));
        }
        float scale = scale_to_half(warp_max(largest));
        if (lane == 0) states[head].factors.columns[first + i] = 1 / scale;
#pragma unroll
        for (int n = 0; n < (Width + 31) / 32; ++n) {
            int j = n * 32 + lane;
            if (j >= Width) continue;
            float rest = values[n] * scale;
#pragma unroll
            for (int t = 0; t < State::kTerms; ++t) {
                f16_t term = from_float<f16_t>(rest);
                states[head].at(t, first + i, j) = term;
                rest -= to_float(term);
            }
        }
    }
    if (blockIdx.x != 0 || threadIdx.x >= 32) return;
    const T* weight = p.q_weight + head % p.heads * Width;
    float largest = 0;
    for (int j = lane; j < Width; j += 32) largest = fmaxf(largest, fabsf(to_float(weight[j])));
    float scale = scale_to_half(warp_max(largest) * sqrtf(static_cast<float>(p.channels())));
    if (lane == 0) states[head].factors.eps = p.eps * scale;
    for (int pair = lane; pair < Width / 2; pair += 32) {
        float sums[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            int64_t at = static_cast<int64_t>(head) * Width + 2 * pair + e;
            sums[e] = 0;
            for (int r = 0; r < ranges.count; ++r) {
                sums[e] += ranges.k_sum[static_cast<int64_t>(r) * heads * Width + at];
            }
            if (p.past_k_sum != nullptr) sums[e] += p.past_k_sum[at];
            p.k_sum[at] = sums[e];
        }
        states[head].factors.pairs[pair] = {to_float(weight[2 * pair]) * scale,
                                            to_float(weight[2 * pair + 1]) * scale, sums[0], sums[1]};
    }
}

struct Card {
    int processors = 0, shared = 0;  // shared memory that a block may have

    explicit Card(Device device) {
        CHECK_CUDA(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device.index));
        CHECK_CUDA(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device.index));
    }

    // Into how many parts, at most `limit`, to divide `tasks` equal pieces of work, so that the last round of blocks is
    // nearly as full as the others.
    int parts(int64_t tasks, int limit) const {
        int best = 1;
        double best_share = 0;
        for (int n = 1; n <= limit; ++n) {
            int64_t blocks = tasks * n, rounds = (blocks + processors - 1) / processors;
            double share = static_cast<double>(blocks) / static_cast<double>(rounds * processors);
            if (share > best_share + 0.04) {  // parts have a cost of their own
                best = n;
                best_share = share;
            }
        }
        return best;
    }
};

template <class Kernel>
void allow_shared(Kernel kernel, int bytes) {
    CHECK_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
}

template <class S, int Terms, class T>
void launch_state(const LinearAttentionProblem<T>& p, const TokenRanges& ranges, Device device) {
    auto kernel = state_mma_kernel<T, S, Terms>;
    cudaStream_t stream = stream_of(device);
    allow_shared(kernel, S::kBytes);
    int groups = p.samples * ((p.heads + S::kHeads - 1) / S::kHeads);
    kernel<<<dim3(static_cast<unsigned>(groups), static_cast<unsigned>(ranges.count)), S::kThreads, S::kBytes,
             stream>>>(p, ranges);
    check_launch("linear_attention state_mma_kernel", device);
}

template <class S, class T>
void launch_apply(const LinearAttentionProblem<T>& p, const typename S::State* states, const Card& card,
                  Device device) {
    auto kernel = apply_mma_kernel<T, S>;
    allow_shared(kernel, S::kBytes);
    int64_t tiles = (p.tokens + S::kRows - 1) / S::kRows;
    int groups = card.parts(tiles * p.samples, std::min(p.heads, 8)), share = (p.heads + groups - 1) / groups;
    groups = (p.heads + share - 1) / share;
    kernel<<<dim3(static_cast<unsigned>(tiles * groups), static_cast<unsigned>(p.samples)), S::kThreads,
             S::kBytes, stream_of(device)>>>(p, states, groups, share);
    check_launch("linear_attention apply_mma_kernel", device);
}

// Columns of a head, tokens, heads, samples.
CUtensorMap head_map(const LinearAttentionProblem<bf16_t>& p, const bf16_t* x, int64_t stride, int tokens,
                     int heads) {
    int64_t sizes[] = {p.width, p.tokens, p.heads, p.samples},
            strides[] = {1, stride, p.width, stride * p.tokens};
    int box[] = {64, tokens, heads, 1};
    return tensor_map(x, 4, sizes, strides, box);
}
// fp32 as pairs of 16 bits.
CUtensorMap table_map(const LinearAttentionProblem<bf16_t>& p, const float* x, int tokens) {
    int64_t sizes[] = {p.width, p.tokens}, strides[] = {1, p.width};
    int box[] = {64, tokens};
    return tensor_map(x, 2, sizes, strides, box);
}

template <int Terms>
void launch_hopper_state(const LinearAttentionProblem<bf16_t>& p, const TokenRanges& ranges, Device device) {
    using S = HopperState;
    StateMaps maps{head_map(p, p.k, p.k_stride, S::kTile, S::kHeads),
                   head_map(p, p.v, p.v_stride, S::kTile, S::kHeads), table_map(p, p.cos, S::kTile),
                   table_map(p, p.sin, S::kTile)};
    auto kernel = hopper_state_kernel<Terms>;
    allow_shared(kernel, S::kBytes);
    unsigned groups = static_cast<unsigned>(p.samples * ((p.heads + S::kHeads - 1) / S::kHeads));
    kernel<<<dim3(groups, static_cast<unsigned>(ranges.count)), S::kThreads, S::kBytes, stream_of(device)>>>(
        p, maps, ranges);
    check_launch("linear_attention hopper_state_kernel", device);
}

void launch_hopper_apply(const LinearAttentionProblem<bf16_t>& p, const HopperHead* states, const Card& card,
                         Device device) {
    using S = HopperApply;
    ApplyMaps maps{head_map(p, p.q, p.q_stride, 16, 1), head_map(p, p.y, p.y_stride, 16, 1)};
    allow_shared(hopper_apply_kernel, S::kBytes);
    int tiles = (p.tokens + S::kRows - 1) / S::kRows;
    int64_t units = int64_t{p.samples} * tiles * p.heads;
    auto blocks = static_cast<unsigned>(std::min<int64_t>(card.processors, units));
    hopper_apply_kernel<<<blocks, S::kThreads, S::kBytes, stream_of(device)>>>(p, maps, states, tiles);
    check_launch("linear_attention hopper_apply_kernel", device);
}

void launch_codes(const LinearAttentionProblem<bf16_t>& p, const HopperHead* states,
                  const LinearAttentionCodes& to, Device device) {
    using S = CodesShape;
    allow_shared(apply_codes_kernel, S::kBytes);
    int tiles = (p.tokens + S::kRows - 1) / S::kRows;
    cudaLaunchAttribute cluster{};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {S::kRanks, 1, 1};
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(tiles * S::kRanks), static_cast<unsigned>(p.samples));
    config.blockDim = dim3(S::kThreads);
    config.dynamicSmemBytes = S::kBytes;
    config.stream = stream_of(device);
    config.attrs = &cluster;
    config.numAttrs = 1;
    CHECK_CUDA(
        cudaLaunchKernelEx(&config, apply_codes_kernel, p, head_map(p, p.q, p.q_stride, 16, 1), states, to));
    check_launch("linear_attention apply_codes_kernel", device);
}

// Partial sums, and the heads as apply has them.
template <class State>
struct Workspace {
    Tensor kv, k_sum, heads;
    TokenRanges ranges;
    State* states;

    // group: heads of a block of state.
    template <class T>
    Workspace(const LinearAttentionProblem<T>& p, int group, const Card& card, Device device) {
        int64_t all = int64_t{p.samples} * p.heads;
        int groups = p.samples * ((p.heads + group - 1) / group), tiles = (p.tokens + 31) / 32;
        int count = card.parts(groups, std::clamp(tiles / 8, 1, 256));
        int length = (tiles + count - 1) / count * 32;
        count = (p.tokens + length - 1) / length;
        kv = empty({count, all, p.width, p.width}, DType::F32, device);
        k_sum = empty({count, all, p.width}, DType::F32, device);
        heads = empty({all * static_cast<int64_t>(sizeof(State))}, DType::U8, device);
        ranges = {count, length, pointer<float>(kv), pointer<float>(k_sum)};
        states = static_cast<State*>(heads.raw());
    }
};

template <int Width, class T, class State>
void launch_reduce(const LinearAttentionProblem<T>& p, const Workspace<State>& w, Device device) {
    reduce_mma_kernel<T, Width, State>
        <<<dim3(Width / kReduceRows, static_cast<unsigned>(p.samples * p.heads)), kReduceThreads, 0,
           stream_of(device)>>>(p, w.ranges, w.states);
    check_launch("linear_attention reduce_mma_kernel", device);
}

void run_hopper(const LinearAttentionProblem<bf16_t>& p, bool exact_state, const Card& card, Device device,
                const LinearAttentionCodes& to) {
    static_assert(sizeof(HopperHead) % 16 == 0);
    Workspace<HopperHead> w(p, HopperState::kHeads, card, device);
    if (exact_state) {
        launch_hopper_state<3>(p, w.ranges, device);
    } else {
        launch_hopper_state<2>(p, w.ranges, device);
    }
    launch_reduce<kHopperWidth>(p, w, device);
    if (to.codes != nullptr) return launch_codes(p, w.states, to, device);
    launch_hopper_apply(p, w.states, card, device);
}

template <int Width, int Heads, class T>
bool run(const LinearAttentionProblem<T>& p, bool exact_state, Device device,
         const LinearAttentionCodes& to) {
    Card card(device);
    if constexpr (Width == kHopperWidth && std::is_same_v<T, bf16_t>) {
        if (is_hopper(device)) return run_hopper(p, exact_state, card, device, to), true;
    }
    constexpr int kTerms = std::is_same_v<T, f16_t> ? 2 : 1;
    // Every card has 99 KiB of shared memory a block; wide heads use what data center cards have.
    constexpr bool kWide = Width > 64;
    using Shallow = StateShape<Width, Heads, kWide ? 2 : 3, 1>;
    using Deep = std::conditional_t<kWide, StateShape<Width, Heads, 4, 1>, Shallow>;
    using State = HeadState<Width, kTerms>;
    static_assert(sizeof(State) % 16 == 0);
    using Small = ApplyShape<Width, kTerms, 4, 2, 1>;
    using Large = std::conditional_t<kWide, ApplyShape<Width, kTerms, kTerms == 1 ? 12 : 8, 2, 1>, Small>;
    if (card.shared < Small::kBytes) return false;  // two terms of wide heads
    Workspace<State> w(p, Heads, card, device);

    auto state = [&]<class S>() {
        // fp16 has bits enough in two terms.
        if constexpr (std::is_same_v<T, bf16_t>) {
            if (exact_state) return launch_state<S, 3>(p, w.ranges, device);
        }
        launch_state<S, 2>(p, w.ranges, device);
    };
    if (card.shared >= Deep::kBytes) {
        state.template operator()<Deep>();
    } else {
        state.template operator()<Shallow>();
    }
    launch_reduce<Width>(p, w, device);
    if (card.shared >= Large::kBytes) {
        launch_apply<Large>(p, w.states, card, device);
    } else {
        launch_apply<Small>(p, w.states, card, device);
    }
    return true;
}

template <class T>
bool rows_fit(const T* x, int64_t stride) {
    return reinterpret_cast<uintptr_t>(x) % 16 == 0 && stride % 8 == 0;
}

template <class T>
bool problem_fits(const LinearAttentionProblem<T>& p) {
    return p.tokens > 0 && rows_fit(p.q, p.q_stride) && rows_fit(p.k, p.k_stride) &&
           rows_fit(p.v, p.v_stride) && rows_fit<T>(p.y, p.y_stride) &&
           reinterpret_cast<uintptr_t>(p.cos) % 16 == 0 && reinterpret_cast<uintptr_t>(p.sin) % 16 == 0 &&
           p.samples * p.heads < 65536;
}

}  // namespace

bool linear_attention_makes_codes(const LinearAttentionProblem<bf16_t>& p, Device device,
                                  const LinearAttentionCodes& to) {
    using S = CodesShape;
    return problem_fits(p) && is_hopper(device) && p.width == S::kWidth && p.heads <= S::kRanks * S::kHeads &&
           reinterpret_cast<uintptr_t>(to.codes) % 16 == 0;
}

template <class T>
bool linear_attention_by_mma(const LinearAttentionProblem<T>& p, bool exact_state, Device device,
                             const LinearAttentionCodes& to) {
    if (!problem_fits(p)) return false;
    // Heads a block: eight warps or more.
    switch (p.width) {
        case 16: return run<16, 8>(p, exact_state, device, to);
        case 32: return run<32, 4>(p, exact_state, device, to);
        case 112: return run<112, 2>(p, exact_state, device, to);
        default: return false;
    }
}

template bool linear_attention_by_mma(const LinearAttentionProblem<bf16_t>&, bool, Device,
                                      const LinearAttentionCodes&);
template bool linear_attention_by_mma(const LinearAttentionProblem<f16_t>&, bool, Device,
                                      const LinearAttentionCodes&);

}  // namespace sana::cuda
