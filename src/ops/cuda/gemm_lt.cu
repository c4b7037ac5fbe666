// product() through cuBLASLt. Row-major y = x w^T is column-major y^T = w x^T: A is w, read transposed, B is x.
// A large product is timed once a shape with the library's candidates, on the operands of the call. Only candidates that
// give the same bits as the library's first choice take part, so that timing changes the speed and never a result.
#include <cublasLt.h>

#include <array>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "core/cuda/device.h"
#include "core/cuda/stream.h"
#include "ops/choices.h"
#include "ops/cuda/device/element.cuh"
#include "ops/cuda/gemm.h"
#include "ops/cuda/hopper.h"

namespace sana::cuda {

namespace {

constexpr int64_t kWorkspace = int64_t{32} << 20;
constexpr int kCandidates = 32;
// Below it all candidates of a sensible list take about as long as the launch.
constexpr double kWorthTiming = 50e9;  // FLOP

void check_blas(cublasStatus_t status, const char* what, const Product& p) {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    fail("cuBLASLt: ", cublasLtGetStatusString(status), " in ", what, ", product ", p.M, " x ", p.N, " x ",
         p.K, " of ", p.dtype, " to ", p.y_dtype);
}

cudaDataType_t type_of(DType dtype) {
    switch (dtype) {
        case DType::F32: return CUDA_R_32F;
        case DType::BF16: return CUDA_R_16BF;
        case DType::F16: return CUDA_R_16F;
        case DType::F8E4M3: return CUDA_R_8F_E4M3;
        default: fail("matrix products of ", dtype, " do not exist on a CUDA device");
    }
}

// Largest power of two, at most 16, that divides an address and the distances between rows and between products.
uint32_t alignment(const Matrix& m, DType dtype, int64_t batch_stride) {
    uint64_t bits = reinterpret_cast<uintptr_t>(m.data) | static_cast<uint64_t>(m.stride * size_of(dtype)) |
                    static_cast<uint64_t>(batch_stride * size_of(dtype)) | 16u;
    return static_cast<uint32_t>(bits & (~bits + 1));
}

// The library's own type has no name, which nvcc's standard containers do not bear.
struct Algorithm : cublasLtMatmulAlgo_t {};

// Descriptors of one call; freed with it.
struct Descriptors {
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr, d = nullptr;
    cublasLtMatmulPreference_t preference = nullptr;

    explicit Descriptors(const Product& p) {
        auto layout = [&](cublasLtMatrixLayout_t& out, DType dtype, int64_t rows, int64_t cols,
                          int64_t stride, int64_t batch_stride) {
            check_blas(cublasLtMatrixLayoutCreate(&out, type_of(dtype), static_cast<uint64_t>(rows),
                                                  static_cast<uint64_t>(cols), stride),
                       "layout", p);
            if (p.batch == 1) return;
            int32_t count = static_cast<int32_t>(p.batch);
            auto attribute = [&](cublasLtMatrixLayoutAttribute_t name, const void* value, size_t bytes) {
                check_blas(cublasLtMatrixLayoutSetAttribute(out, name, value, bytes), "batch", p);
            };
            attribute(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count);
            attribute(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &batch_stride, sizeof batch_stride);
        };
        check_blas(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "descriptor", p);
        cublasOperation_t transposed = CUBLAS_OP_T;
        if (!p.w_transposed) set(CUBLASLT_MATMUL_DESC_TRANSA, transposed, p);
        if (p.x_transposed) set(CUBLASLT_MATMUL_DESC_TRANSB, transposed, p);
        if (p.bias != nullptr) {
            cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
            set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue, p);
            set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias, p);
            cudaDataType_t type = type_of(p.dtype == DType::F8E4M3 ? p.y_dtype : p.dtype);
            set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type, p);
        }
        if (p.dtype == DType::F8E4M3) {
            // Sums as the tensor cores keep them; exact ones run at 0.75 of the speed (docs/performance.md).
            int8_t fast = 1;
            set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, fast, p);
            cublasLtMatmulMatrixScale_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
            set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, mode, p);
            set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, mode, p);
            set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, p.w_scale, p);
            set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, p.x_scale, p);
        }
        // A matrix of one column may have any stride, but cuBLASLt asks for one of at least its rows.
        auto stride = [](const Matrix& m, int64_t rows) { return std::max(m.stride, rows); };
        auto operand = [&](cublasLtMatrixLayout_t& out, const Matrix& m, bool turned, int64_t columns,
                           int64_t batch_stride) {
            int64_t rows = turned ? columns : p.K;
            layout(out, p.dtype, rows, turned ? p.K : columns, stride(m, rows), batch_stride);
        };
        operand(a, p.w, p.w_transposed, p.N, p.w_batch);
        operand(b, p.x, p.x_transposed, p.M, p.x_batch);
        layout(c, p.y_dtype, p.N, p.M, stride(p.c.data != nullptr ? p.c : p.y, p.N), p.y_batch);
        layout(d, p.y_dtype, p.N, p.M, stride(p.y, p.N), p.y_batch);
    }
    ~Descriptors() {
        cublasLtMatmulPreferenceDestroy(preference);
        for (cublasLtMatrixLayout_t layout : {a, b, c, d}) cublasLtMatrixLayoutDestroy(layout);
        cublasLtMatmulDescDestroy(operation);
    }
    Descriptors(const Descriptors&) = delete;
    Descriptors& operator=(const Descriptors&) = delete;

    template <class V>
    void set(cublasLtMatmulDescAttributes_t attribute, const V& value, const Product& p) {
        check_blas(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof value), "attribute",
                   p);
    }

    // The library's candidates, its first choice first.
    std::vector<Algorithm> candidates(cublasLtHandle_t handle, const Product& p, int most) {
        check_blas(cublasLtMatmulPreferenceCreate(&preference), "preference", p);
        auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
            check_blas(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value),
                       "preference", p);
        };
        prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<size_t>(kWorkspace));
        // Split products are added in fp32, not in the result's type: one rounding.
        prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
               static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
        prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(p.w, p.dtype, p.w_batch));
        prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(p.x, p.dtype, p.x_batch));
        prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
               alignment(p.c.data != nullptr ? p.c : p.y, p.y_dtype, p.y_batch));
        prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(p.y, p.y_dtype, p.y_batch));
        cublasLtMatmulHeuristicResult_t results[kCandidates];
        int found = 0;
        check_blas(
            cublasLtMatmulAlgoGetHeuristic(handle, operation, a, b, c, d, preference, most, results, &found),
            "choice of a kernel", p);
        check(found > 0, "cuBLASLt has no kernel for the product ", p.M, " x ", p.N, " x ", p.K, " of ",
              p.dtype);
        std::vector<Algorithm> algorithms;
        for (int i = 0; i < found; ++i) algorithms.push_back({results[i].algo});
        return algorithms;
    }

    bool suits(cublasLtHandle_t handle, const Algorithm& algorithm) const {
        cublasLtMatmulHeuristicResult_t result{};
        return cublasLtMatmulAlgoCheck(handle, operation, a, b, c, d, &algorithm, &result) ==
                   CUBLAS_STATUS_SUCCESS &&
               result.workspaceSize <= static_cast<size_t>(kWorkspace);
    }
};

cublasLtHandle_t handle_of(Device device, const Product& p) {
    static std::mutex mutex;
    static std::map<int, cublasLtHandle_t> handles;
    std::lock_guard lock(mutex);
    cublasLtHandle_t& handle = handles[device.index];
    if (handle == nullptr) check_blas(cublasLtCreate(&handle), "cublasLtCreate", p);
    return handle;
}

using Key =
    std::tuple<int, DType, DType, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, uint32_t,
               uint32_t, uint32_t, uint32_t, bool, bool, bool, int64_t, int64_t, int64_t, int64_t>;

Key key_of(const Product& p) {
    return {p.device.index,
            p.dtype,
            p.y_dtype,
            p.M,
            p.N,
            p.K,
            p.x.stride,
            p.w.stride,
            p.y.stride,
            p.c.data != nullptr ? p.c.stride : -1,
            alignment(p.x, p.dtype, p.x_batch),
            alignment(p.w, p.dtype, p.w_batch),
            alignment(p.y, p.y_dtype, p.y_batch),
            p.c.data != nullptr ? alignment(p.c, p.y_dtype, p.y_batch) : 0,
            p.bias != nullptr,
            p.x_transposed,
            p.w_transposed,
            p.batch,
            p.x_batch,
            p.w_batch,
            p.y_batch};
}

struct Call {
    cublasLtHandle_t handle;
    const Descriptors& descriptors;
    const Product& p;
    void* workspace;
    cudaStream_t stream;

    cublasStatus_t operator()(const Algorithm& algorithm) const {
        float one = 1, beta = p.c.data != nullptr ? 1 : 0;
        const Descriptors& d = descriptors;
        return cublasLtMatmul(handle, d.operation, &one, p.w.data, d.a, p.x.data, d.b, &beta,
                              p.c.data != nullptr ? p.c.data : p.y.data, d.c, p.y.data, d.d, &algorithm,
                              workspace, static_cast<size_t>(kWorkspace), stream);
    }
};

// A sum over rows of words of a hash of place and bits: equal for equal results, whatever the order of adding.
__global__ void hash_kernel(const uint16_t* data, int64_t stride, int64_t cols, int64_t count,
                            unsigned long long* hash) {
    unsigned long long sum = 0;
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += step) {
        // SplitMix64 (Steele, Lea, Flood 2014).
        uint64_t x =
            (static_cast<uint64_t>(i) << 16 | data[i / cols * stride + i % cols]) + 0x9e3779b97f4a7c15u;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        sum += x ^ (x >> 31);
    }
    atomicAdd(hash, sum);
}

class Timer {
public:
    Timer(const Call& call) : call_(call), hash_(allocate(sizeof(unsigned long long), call.p.device)) {
        CHECK_CUDA(cudaEventCreate(&start_));
        CHECK_CUDA(cudaEventCreate(&end_));
    }
    ~Timer() {
        cudaEventDestroy(start_);
        cudaEventDestroy(end_);
    }
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

    // Milliseconds; infinite when the candidate does not run.
    float milliseconds(const Algorithm& algorithm) const {
        CHECK_CUDA(cudaEventRecord(start_, call_.stream));
        bool done = call_(algorithm) == CUBLAS_STATUS_SUCCESS;
        CHECK_CUDA(cudaEventRecord(end_, call_.stream));
        CHECK_CUDA(cudaEventSynchronize(end_));
        float time = 0;
        CHECK_CUDA(cudaEventElapsedTime(&time, start_, end_));
        return done ? time : INFINITY;
    }

    unsigned long long hash() const {
        const Product& p = call_.p;
        auto* hash = reinterpret_cast<unsigned long long*>(hash_->data());
        CHECK_CUDA(cudaMemsetAsync(hash, 0, sizeof *hash, call_.stream));
        int64_t words = size_of(p.y_dtype) / 2, count = p.M * p.N * words;
        hash_kernel<<<grid_for(count, 256), 256, 0, call_.stream>>>(
            static_cast<const uint16_t*>(p.y.data), p.y.stride * words, p.N * words, count, hash);
        check_launch("hash_kernel", p.device);
        unsigned long long value = 0;
        CHECK_CUDA(cudaMemcpyAsync(&value, hash, sizeof value, cudaMemcpyDeviceToHost, call_.stream));
        CHECK_CUDA(cudaStreamSynchronize(call_.stream));
        return value;
    }

private:
    const Call& call_;
    StoragePtr hash_;
    cudaEvent_t start_ = nullptr, end_ = nullptr;
};

// The fastest candidate whose result has the bits of the first one's. y is written by every trial.
Algorithm fastest(const Call& call, const std::vector<Algorithm>& candidates) {
    Timer timer(call);
    timer.milliseconds(candidates[0]);
    unsigned long long wanted = timer.hash();
    std::vector<std::pair<float, size_t>> order;
    for (size_t i = 0; i < candidates.size(); ++i) {
        float time = timer.milliseconds(candidates[i]);
        if (time < INFINITY && timer.hash() == wanted) order.emplace_back(time, i);
    }
    std::sort(order.begin(), order.end());
    // The best few in turn, so that a clock that falls meanwhile wrongs none of them.
    constexpr size_t kFinal = 4, kRounds = 7;
    order.resize(std::min(order.size(), kFinal));
    if (std::none_of(order.begin(), order.end(), [](auto& o) { return o.second == 0; }))
        order.emplace_back(0, 0);
    std::vector<std::vector<float>> times(order.size());
    for (size_t round = 0; round < kRounds; ++round) {
        for (size_t k = 0; k < order.size(); ++k)
            times[k].push_back(timer.milliseconds(candidates[order[k].second]));
    }
    for (size_t k = 0; k < order.size(); ++k) {
        std::nth_element(times[k].begin(), times[k].begin() + kRounds / 2, times[k].end());
        order[k].first = times[k][kRounds / 2];
    }
    return candidates[std::min_element(order.begin(), order.end())->second];
}

// An algorithm as the library keeps it: eight words that mean the same to the same version of it.
std::string to_text(const Algorithm& algorithm) {
    std::string text;
    for (uint64_t word : algorithm.data) {
        char hex[20];
        std::snprintf(hex, sizeof hex, "%s%016llx", text.empty() ? "" : " ",
                      static_cast<unsigned long long>(word));
        text += hex;
    }
    return text;
}

std::optional<Algorithm> from_text(const std::string& text) {
    Algorithm algorithm{};
    unsigned long long words[8];
    if (std::sscanf(text.c_str(), "%llx %llx %llx %llx %llx %llx %llx %llx", &words[0], &words[1], &words[2],
                    &words[3], &words[4], &words[5], &words[6], &words[7]) != 8)
        return std::nullopt;
    std::copy(words, words + 8, algorithm.data);
    return algorithm;
}

// What a file of choices calls a product.
std::string name_of_product(const Product& p) {
    return join(p.dtype, " to ", p.y_dtype, ' ', p.M, 'x', p.N, 'x', p.K, " strides ", p.x.stride, ' ',
                p.w.stride, ' ', p.y.stride, ' ', p.c.data != nullptr ? p.c.stride : -1, " aligned ",
                alignment(p.x, p.dtype, 0), ' ', alignment(p.w, p.dtype, 0), ' ',
                alignment(p.y, p.y_dtype, 0), ' ', p.c.data != nullptr ? alignment(p.c, p.y_dtype, 0) : 0,
                p.bias != nullptr ? " bias" : "", p.x_transposed ? " x transposed" : "",
                p.w_transposed ? " w transposed" : "");
}

// One file a device name and library version: their kernels and speeds differ.
Choices& choices_of(Device device) {
    static std::array<std::unique_ptr<Choices>, 64> all;
    std::unique_ptr<Choices>& choices = all[static_cast<size_t>(device.index)];
    if (choices != nullptr) return *choices;
    std::string path;
    if (std::optional<std::string> folder = choices_folder()) {
        std::string name = device_info(device.index).name;
        for (char& c : name) {
            if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '-';
        }
        path =
            join(*folder, "/gemm-", name, "-cublaslt-", static_cast<int64_t>(cublasLtGetVersion()), ".txt");
    }
    choices = std::make_unique<Choices>(path);
    return *choices;
}

bool worth_timing(const Product& p, cudaStream_t stream) {
    double flop = 2.0 * static_cast<double>(p.M) * static_cast<double>(p.N) * static_cast<double>(p.K);
    // A trial of a product that is added to its own result would change its operand.
    if (flop < kWorthTiming || p.batch > 1 || p.c.data == p.y.data || !choices_wanted()) return false;
    cudaStreamCaptureStatus capture{};
    CHECK_CUDA(cudaStreamIsCapturing(stream, &capture));
    return capture == cudaStreamCaptureStatusNone;
}

Algorithm decide(const Call& call, Descriptors& descriptors) {
    const Product& p = call.p;
    if (!worth_timing(p, call.stream)) return descriptors.candidates(call.handle, p, 1)[0];
    Choices& choices = choices_of(p.device);
    std::string name = name_of_product(p);
    if (std::optional<std::string> known = choices.find(name)) {
        std::optional<Algorithm> algorithm = from_text(*known);
        if (algorithm && descriptors.suits(call.handle, *algorithm)) return *algorithm;
    }
    Algorithm best = fastest(call, descriptors.candidates(call.handle, p, kCandidates));
    choices.put(name, to_text(best));
    return best;
}

}  // namespace

bool has_fp8_product(const Product& p) {
    return is_hopper(p.device) && p.y_dtype == DType::BF16 && alignment(p.x, p.dtype, 0) == 16 &&
           alignment(p.w, p.dtype, 0) == 16 && alignment(p.y, p.y_dtype, 0) == 16 && p.K % 16 == 0 &&
           p.N % 16 == 0;
}

void product(const Product& p) {
    if (p.M == 0 || p.N == 0 || p.batch == 0) return;
    cudaStream_t stream = stream_of(p.device);
    cublasLtHandle_t handle = handle_of(p.device, p);
    static std::mutex mutex;
    static std::map<Key, Algorithm> chosen;
    Descriptors descriptors(p);
    StoragePtr workspace = allocate(kWorkspace, p.device);
    Call call{handle, descriptors, p, workspace->data(), stream};
    Algorithm algorithm;
    {
        std::lock_guard lock(mutex);
        Key key = key_of(p);
        auto it = chosen.find(key);
        if (it == chosen.end()) it = chosen.emplace(key, decide(call, descriptors)).first;
        algorithm = it->second;
    }
    check_blas(call(algorithm), "matmul", p);
}

}  // namespace sana::cuda
