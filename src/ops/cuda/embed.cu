// embedding: a row of the table a token. timestep_embedding: a thread a pair of outputs.
#include "ops/embed.h"

#include "ops/cuda/cuda.h"
#include "ops/cuda/device/element.cuh"

namespace sana::cuda {

namespace {

// An id outside the table is reported through *wrong (its position + 1), as the host cannot see the ids; its row is not a
// number, for those who cannot read *wrong.
template <class T>
__global__ void embedding_kernel(const int32_t* ids, const T* table, float scale, T* y, int64_t vocabulary,
                                 int64_t cols, int64_t count, int* wrong) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    float factor = to_float(from_float<T>(scale));  // the reference multiplies by the rounded factor
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        int64_t token = i / cols, id = ids[token];
        if (id < 0 || id >= vocabulary) {
            atomicMax(wrong, static_cast<int>(token) + 1);
            y[i] = from_float<T>(NAN);
            continue;
        }
        y[i] = from_float<T>(to_float(table[id * cols + i - token * cols]) * factor);
    }
}

__global__ void timestep_embedding_kernel(const float* t, float* y, int64_t half, int64_t count) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        int64_t row = i / half, j = i - row * half;
        // Rounded step by step as the reference does in fp32: at t near 1000 that is visible in the 5th digit.
        float exponent =
            __fdiv_rn(__fmul_rn(-9.210340371976184f, static_cast<float>(j)), static_cast<float>(half));
        float angle = __fmul_rn(t[row], expf(exponent));
        y[row * 2 * half + j] = cosf(angle);
        y[row * 2 * half + half + j] = sinf(angle);
    }
}

}  // namespace

void embedding(const EmbeddingArgs& args) {
    int64_t count = args.y.numel();
    if (count == 0) return;
    check(args.ids.device() == args.table.device(), "embedding: ids are on ", args.ids.device(),
          " and the table on ", args.table.device());
    Tensor wrong = zeros({1}, DType::I32, args.table.device());
    dispatch_cuda("embedding", args.table.dtype(), [&]<class T>() {
        embedding_kernel<T><<<grid_for(count, 256), 256, 0, stream_of(args.table.device())>>>(
            pointer<int32_t>(args.ids), pointer<T>(args.table), args.scale, pointer<T>(args.y),
            args.table.dim(0), args.table.cols(), count, pointer<int>(wrong));
    });
    check_launch("embedding", args.table.device());
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    CHECK_CUDA(cudaStreamIsCapturing(stream_of(args.table.device()), &status));
    if (status != cudaStreamCaptureStatusNone) return;  // nothing can be read back in a recording
    int64_t position = to_vector<int64_t>(wrong)[0];
    check_input(position == 0, "embedding: the token id at position ", position - 1,
                " is outside the vocabulary of ", args.table.dim(0),
                "; tokenizer and text encoder do not belong together");
}

void timestep_embedding(const TimestepEmbeddingArgs& args) {
    check(args.t.dtype() == DType::F32, "timestep_embedding: ", args.t, " must be fp32 on a CUDA device");
    int64_t half = args.y.cols() / 2, count = args.t.numel() * half;
    if (count == 0) return;
    timestep_embedding_kernel<<<grid_for(count, 256), 256, 0, stream_of(args.t.device())>>>(
        pointer<float>(args.t), pointer<float>(args.y), half, count);
    check_launch("timestep_embedding", args.t.device());
}

}  // namespace sana::cuda
