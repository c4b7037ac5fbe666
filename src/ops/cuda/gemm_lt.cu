// product() through cuBLASLt. Row-major y = x w^T is column-major y^T = w x^T: A is w, read transposed, B is x.
#include <cublasLt.h>

#include <map>
#include <mutex>
#include <tuple>

#include "core/cuda/stream.h"
#include "ops/cuda/gemm.h"

namespace sana::cuda {

namespace {

constexpr int64_t kWorkspace = int64_t{32} << 20;

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
        default: fail("matrix products of ", dtype, " do not exist on a CUDA device");
    }
}

// Largest power of two, at most 16, that divides an address and the distances between rows and between products.
uint32_t alignment(const Matrix& m, DType dtype, int64_t batch_stride) {
    uint64_t bits = reinterpret_cast<uintptr_t>(m.data) | static_cast<uint64_t>(m.stride * size_of(dtype)) |
                    static_cast<uint64_t>(batch_stride * size_of(dtype)) | 16u;
    return static_cast<uint32_t>(bits & (~bits + 1));
}

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
            cudaDataType_t type = type_of(p.dtype);
            set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type, p);
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

    cublasLtMatmulAlgo_t choose(cublasLtHandle_t handle, const Product& p) {
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
        cublasLtMatmulHeuristicResult_t result{};
        int found = 0;
        check_blas(
            cublasLtMatmulAlgoGetHeuristic(handle, operation, a, b, c, d, preference, 1, &result, &found),
            "choice of a kernel", p);
        check(found == 1, "cuBLASLt has no kernel for the product ", p.M, " x ", p.N, " x ", p.K, " of ",
              p.dtype);
        return result.algo;
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

}  // namespace

void product(const Product& p) {
    if (p.M == 0 || p.N == 0 || p.batch == 0) return;
    cudaStream_t stream = stream_of(p.device);
    cublasLtHandle_t handle = handle_of(p.device, p);
    static std::mutex mutex;
    static std::map<Key, cublasLtMatmulAlgo_t> chosen;
    Descriptors descriptors(p);
    cublasLtMatmulAlgo_t algorithm;
    {
        std::lock_guard lock(mutex);
        Key key = key_of(p);
        auto it = chosen.find(key);
        if (it == chosen.end()) it = chosen.emplace(key, descriptors.choose(handle, p)).first;
        algorithm = it->second;
    }
    StoragePtr workspace = allocate(kWorkspace, p.device);
    float one = 1, beta = p.c.data != nullptr ? 1 : 0;
    check_blas(
        cublasLtMatmul(handle, descriptors.operation, &one, p.w.data, descriptors.a, p.x.data, descriptors.b,
                       &beta, p.c.data != nullptr ? p.c.data : p.y.data, descriptors.c, p.y.data,
                       descriptors.d, &algorithm, workspace->data(), static_cast<size_t>(kWorkspace), stream),
        "matmul", p);
}

}  // namespace sana::cuda
