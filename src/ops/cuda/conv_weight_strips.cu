// The derivative of the weight of a convolution of 3 x 3 in space, with tensor cores, for 16-bit types, stride 1 and zero
// padding (for the sum see conv_weight_mma.cu). A block keeps a tile of outputs x inputs for one tap in time, each of its nine
// warps for one tap in space, and walks down strips of 32 columns: every row of dy and of x comes into shared memory once,
// x with its neighbours, and stays for the three rows that meet it. Strips are cut into pieces so that there are enough
// of them; parts are added up in order.
#include "ops/cuda/device/derivative.cuh"
#include "ops/cuda/device/mma.cuh"
#include "ops/cuda/gradients.h"

namespace sana::cuda {

namespace {

constexpr int kPixels = 32, kRowPixels = kPixels + 2, kThreads = 9 * 32, kPad = 8;
// Rows of a ring: three in use, three on their way.
constexpr int kStages = 6, kAhead = 3;

struct Strips {
    int64_t pieces, per_part;
    int frames, height, width;        // of dy
    int x_frames, x_height, x_width;  // of x without the past
    int past;                         // frames of it
    int time_taps, before[3];
    int out, in, out_tiles, in_tiles;
    int columns, cuts, rows;  // strips of a frame, pieces of a strip, rows of a piece
};

// Pieces of a part, without those of frames that see nothing but padding.
template <class T>
struct Walk {
    const Strips& g;
    const T *x, *past, *dy;
    int64_t piece, last;
    int u;
    int first_row = 0, first_pixel = 0;  // of the piece
    const T *x_frame = nullptr, *dy_frame = nullptr;

    __device__ bool find() {
        for (; piece < last; ++piece) {
            int64_t frame = piece / (g.columns * g.cuts), b = frame / g.frames;
            int t = static_cast<int>(frame % g.frames) + u - g.before[0];
            if (t < 0 || t >= g.x_frames + g.past) continue;
            bool old = t < g.past;
            int64_t x_index = old ? b * g.past + t : b * g.x_frames + t - g.past;
            int place = static_cast<int>(piece % (g.columns * g.cuts));
            first_row = place / g.columns * g.rows;
            first_pixel = place % g.columns * kPixels;
            x_frame = (old ? past : x) + x_index * g.x_height * g.x_width * g.in;
            dy_frame = dy + frame * g.height * g.width * g.out;
            return true;
        }
        return false;
    }
};

__device__ __forceinline__ int next_stage(int stage) { return stage + 1 == kStages ? 0 : stage + 1; }

template <class T, int TM, int TN>
__global__ void __launch_bounds__(kThreads, TM* TN < 48 * 48 ? 2 : 1)
    conv_weight_strips_kernel(const T* x, const T* past, const T* dy, float* partial, Strips g) {
    constexpr int kA = TM + kPad, kB = TN + kPad, kVectorsA = kPixels * (TM / 8),
                  kVectorsB = kRowPixels * (TN / 8), kStageA = kPixels * kA * 2,
                  kStageB = kRowPixels * kB * 2;
    // Vectors of a row of x and of dy that a thread copies; of dy, the threads that have less of x have more.
    constexpr int kOfX = (kVectorsB + kThreads - 1) / kThreads, kOfDy = (kVectorsA + kThreads - 1) / kThreads;
    __shared__ __align__(16) uint8_t a_tile[kStages * kStageA];
    __shared__ __align__(16) uint8_t b_tile[kStages * kStageB];
    int tile = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x), warp = thread / 32,
        lane = thread % 32, v = warp / 3, s = warp % 3;
    int u = tile % g.time_taps;
    tile /= g.time_taps;
    int c0 = tile % g.in_tiles * TN, o0 = tile / g.in_tiles * TM;
    uint32_t a_base = static_cast<uint32_t>(__cvta_generic_to_shared(a_tile)),
             b_base = static_cast<uint32_t>(__cvta_generic_to_shared(b_tile));
    int64_t first = blockIdx.y * g.per_part;
    Walk<T> fetch{g, x, past, dy, first, min(first + g.per_part, g.pieces), u};

    // Event e of a piece brings row e - before of x and row e - 2 of dy.
    int fetch_event = 0, fetch_stage = 0, x_row = 0;
    const T *x_at[kOfX], *dy_at[kOfDy];  // this thread's vectors in the rows to come
    bool x_there[kOfX], dy_there[kOfDy];
    auto begin_piece = [&] {
        x_row = fetch.first_row - g.before[1];
#pragma unroll
        for (int j = 0; j < kOfX; ++j) {
            int i = thread + j * kThreads, p = fetch.first_pixel + i / (TN / 8) - g.before[2],
                c = c0 + i % (TN / 8) * 8;
            x_there[j] = i < kVectorsB && p >= 0 && p < g.x_width && c < g.in;
            x_at[j] = fetch.x_frame + (static_cast<int64_t>(x_row) * g.x_width + p) * g.in + c;
        }
#pragma unroll
        for (int j = 0; j < kOfDy; ++j) {
            int i = kThreads - 1 - thread + j * kThreads, p = fetch.first_pixel + i / (TM / 8),
                c = o0 + i % (TM / 8) * 8;
            dy_there[j] = i < kVectorsA && p < g.width && c < g.out;
            dy_at[j] = fetch.dy_frame + (static_cast<int64_t>(fetch.first_row) * g.width + p) * g.out + c;
        }
    };
    auto load_rows = [&] {
        bool inside = x_row >= 0 && x_row < g.x_height;
#pragma unroll
        for (int j = 0; j < kOfX; ++j) {
            int i = thread + j * kThreads;
            uint32_t to = b_base + fetch_stage * kStageB + i / (TN / 8) * (kB * 2) + i % (TN / 8) * 16;
            bool there = inside && x_there[j];
            if (i < kVectorsB) copy_async(to, there ? x_at[j] : x, there);
            x_at[j] += g.x_width * g.in;
        }
        ++x_row;
        if (fetch_event < 2) return;
        inside = fetch.first_row + fetch_event - 2 < g.height;
#pragma unroll
        for (int j = 0; j < kOfDy; ++j) {
            int i = kThreads - 1 - thread + j * kThreads;
            uint32_t to = a_base + fetch_stage * kStageA + i / (TM / 8) * (kA * 2) + i % (TM / 8) * 16;
            bool there = inside && dy_there[j];
            if (i < kVectorsA) copy_async(to, there ? dy_at[j] : dy, there);
            dy_at[j] += g.width * g.out;
        }
    };
    // Rows are counted by groups of copies, empty ones at the end included.
    int loaded = 0;
    auto prefetch = [&] {
        bool more = true;
        if (fetch_event == 0) {
            more = fetch.find();
            if (more) begin_piece();
        }
        if (more) {
            load_rows();
            ++loaded;
            fetch_stage = next_stage(fetch_stage);
            if (++fetch_event == g.rows + 2) {
                fetch_event = 0;
                ++fetch.piece;
            }
        }
        copy_commit();
    };
    for (int i = 0; i < kAhead; ++i) prefetch();

    float sums[TM / 16][TN / 8][4] = {};
    int k_lane = lane % 8, matrix = lane / 8, event = 0;
    // Where this lane's rows of matrices begin in a stage.
    uint32_t a_lane = a_base + ((matrix >= 2 ? 8 : 0) + k_lane) * (kA * 2) + matrix % 2 * 16,
             b_lane = b_base + (s + matrix % 2 * 8 + k_lane) * (kB * 2) + (matrix >= 2 ? 16 : 0);
    int stage = 0;  // of the row that is waited for; that of x which this warp needs came 2 - v events before
    for (int done = 0; done < loaded; ++done) {
        copy_wait_but<kAhead - 1>();
        __syncthreads();
        prefetch();
        int now = event, at = stage, x_stage = at - 2 + v;
        event = event + 1 < g.rows + 2 ? event + 1 : 0;
        stage = next_stage(stage);
        if (now < 2) continue;
        if (x_stage < 0) x_stage += kStages;
        uint32_t a_stage = a_lane + at * kStageA, b_stage = b_lane + x_stage * kStageB;
#pragma unroll
        for (int k = 0; k < kPixels; k += 16) {
            uint32_t a[TM / 16][4];
#pragma unroll
            for (int m = 0; m < TM / 16; ++m) load_matrices_transposed(a[m], a_stage + k * (kA * 2) + m * 32);
#pragma unroll
            for (int n = 0; n < TN / 16; ++n) {
                uint32_t b[4];
                load_matrices_transposed(b, b_stage + k * (kB * 2) + n * 32);
#pragma unroll
                for (int m = 0; m < TM / 16; ++m) {
                    mma<T>(sums[m][2 * n], a[m], b[0], b[1]);
                    mma<T>(sums[m][2 * n + 1], a[m], b[2], b[3]);
                }
            }
        }
    }

    int taps = g.time_taps * 9, tap = u * 9 + warp;
#pragma unroll
    for (int m = 0; m < TM / 16; ++m) {
#pragma unroll
        for (int n = 0; n < TN / 8; ++n) {
            int c = c0 + n * 8 + 2 * (lane % 4);
            if (c >= g.in) continue;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                int o = o0 + m * 16 + lane / 4 + 8 * half;
                if (o >= g.out) continue;
                float* to =
                    partial + ((static_cast<int64_t>(blockIdx.y) * g.out + o) * taps + tap) * g.in + c;
                to[0] = sums[m][n][2 * half];
                to[1] = sums[m][n][2 * half + 1];
            }
        }
    }
}

template <class T, int TM, int TN>
void run(const Conv3dWeightGradArgs& args, Strips g) {
    g.out_tiles = (g.out + TM - 1) / TM;
    g.in_tiles = (g.in + TN - 1) / TN;
    int64_t tiles = int64_t{g.out_tiles} * g.in_tiles * g.time_taps;
    // Two or three blocks fit a multiprocessor: a few rounds of them.
    int64_t wanted = std::clamp<int64_t>(132 * 6 / tiles, 1, g.pieces);
    g.per_part = (g.pieces + wanted - 1) / wanted;
    int64_t parts = (g.pieces + g.per_part - 1) / g.per_part, weights = args.dweight.numel();
    Tensor partial = empty({parts, weights}, DType::F32, args.x.device());
    const Tensor& past = args.options.past;
    dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(parts));
    conv_weight_strips_kernel<T, TM, TN><<<grid, kThreads, 0, stream_of(args.x.device())>>>(
        pointer<T>(args.x), past.defined() ? pointer<T>(past) : nullptr, pointer<T>(args.dy),
        pointer<float>(partial), g);
    check_launch("conv3d", args.x.device());
    Tensor y = args.dweight.reshape({1, weights});
    sum_parts(partial, parts, y);
}

// A tile of 48 where it is filled, else one of 32.
template <class T>
void by_tiles(const Conv3dWeightGradArgs& args, const Strips& g) {
    bool wide_out = g.out % 48 == 0, wide_in = g.in % 48 == 0;
    if (wide_out) return wide_in ? run<T, 48, 48>(args, g) : run<T, 48, 32>(args, g);
    wide_in ? run<T, 32, 48>(args, g) : run<T, 32, 32>(args, g);
}

}  // namespace

void conv3d_weight_by_strips(const Conv3dWeightGradArgs& args) {
    const Conv3dOptions& o = args.options;
    const Tensor &x = args.x, &dy = args.dy, &dw = args.dweight;
    auto number = [](int64_t n) { return static_cast<int>(n); };
    Strips g{};
    g.frames = number(dy.dim(1));
    g.height = number(dy.dim(2));
    g.width = number(dy.dim(3));
    g.x_frames = number(x.dim(1));
    g.x_height = number(x.dim(2));
    g.x_width = number(x.dim(3));
    g.past = o.past.defined() ? number(o.past.dim(1)) : 0;
    g.time_taps = number(dw.dim(1));
    for (size_t i = 0; i < 3; ++i) g.before[i] = number(o.pad_before[i]);
    g.out = number(dw.dim(0));
    g.in = number(dw.dim(4));
    constexpr int kRows = 32;
    g.columns = (g.width + kPixels - 1) / kPixels;
    g.cuts = (g.height + kRows - 1) / kRows;
    g.rows = (g.height + g.cuts - 1) / g.cuts;
    g.pieces = dy.dim(0) * dy.dim(1) * g.columns * g.cuts;
    x.dtype() == DType::BF16 ? by_tiles<bf16_t>(args, g) : by_tiles<f16_t>(args, g);
}

}  // namespace sana::cuda
