// Which kernels take the time, on machines where no profiler reads the counters: preloaded, this library puts events around
// every launch, copy, fill and product of a program that uses the shared CUDA runtime and cuBLASLt, and writes their sums.
//   LD_PRELOAD=libsana_launches.so SANA_LAUNCHES=list.txt SANA_LAUNCHES_PERIOD=adamw sana train ...
// SANA_LAUNCHES: the file to write; none: standard error. SANA_LAUNCHES_PERIOD: part of the name of a kernel that ends a
// period; the sums are of the last whole one (a step of training). Without it they are of the whole run.
// Launches from a recorded graph could not be told apart: recording is refused, and the program does without. Launches are
// timed one by one, so that what overlaps in the program counts twice.
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {

struct Launch {
    std::string name;
    cudaEvent_t begin, end;
};

class Recorder {
public:
    Recorder() {
        if (const char* word = std::getenv("SANA_LAUNCHES_PERIOD")) period_word_ = word;
        std::atexit([] { recorder().write(); });
    }
    static Recorder& recorder() {
        static Recorder* r = new Recorder;  // outlives the destructors of the program
        return *r;
    }

    template <class F>
    auto timed(const std::string& name, cudaStream_t stream, F launch) {
        std::lock_guard lock(mutex_);
        if (!period_word_.empty() && name.find(period_word_) != std::string::npos) end_period(stream);
        Launch l{name, event(), event()};
        (void)cudaEventRecord(l.begin, stream);
        auto result = launch();
        (void)cudaEventRecord(l.end, stream);
        now_.push_back(l);
        return result;
    }

private:
    cudaEvent_t event() {
        cudaEvent_t e = nullptr;
        if (spare_.empty()) {
            (void)cudaEventCreate(&e);
        } else {
            e = spare_.back();
            spare_.pop_back();
        }
        return e;
    }

    void end_period(cudaStream_t stream) {
        cudaEvent_t e = event();
        (void)cudaEventRecord(e, stream);
        (void)cudaEventSynchronize(e);
        // Several launches of the same kernel end one period.
        if (now_.size() < 100) return spare_.push_back(e);
        if (last_end_ != nullptr) (void)cudaEventElapsedTime(&period_ms_, last_end_, e);
        for (const Launch& l : last_) {
            spare_.push_back(l.begin);
            spare_.push_back(l.end);
        }
        last_ = std::move(now_);
        now_.clear();
        last_end_ = e;
    }

    void write() {
        std::lock_guard lock(mutex_);
        if (period_word_.empty()) last_ = std::move(now_);
        std::map<std::string, std::pair<int, double>> sums;
        double all = 0;
        for (const Launch& l : last_) {
            float ms = 0;
            if (cudaEventSynchronize(l.end) != cudaSuccess ||
                cudaEventElapsedTime(&ms, l.begin, l.end) != cudaSuccess)
                continue;
            ++sums[l.name].first;
            sums[l.name].second += static_cast<double>(ms);
            all += static_cast<double>(ms);
        }
        (void)cudaGetLastError();
        std::vector<std::pair<double, std::string>> order;
        for (const auto& [name, sum] : sums) order.emplace_back(sum.second, name);
        std::sort(order.rbegin(), order.rend());
        const char* path = std::getenv("SANA_LAUNCHES");
        std::FILE* file = path == nullptr ? stderr : std::fopen(path, "w");
        if (file == nullptr) {
            std::fprintf(stderr, "sana_launches: %s cannot be written\n", path);
            return;
        }
        if (!period_word_.empty()) std::fprintf(file, "period %.1f ms, ", static_cast<double>(period_ms_));
        std::fprintf(file, "%.1f ms in %zu launches\n", all, last_.size());
        for (const auto& [ms, name] : order) {
            int count = sums[name].first;
            std::fprintf(file, "%9.3f ms %6d x %8.4f  %s\n", ms, count, ms / count, name.c_str());
        }
        if (path != nullptr) std::fclose(file);
    }

    std::mutex mutex_;
    std::string period_word_;
    std::vector<Launch> now_, last_;
    std::vector<cudaEvent_t> spare_;
    cudaEvent_t last_end_ = nullptr;
    float period_ms_ = 0;
};

template <class F>
auto timed(const std::string& name, cudaStream_t stream, F launch) {
    return Recorder::recorder().timed(name, stream, launch);
}

// The function that this library stands in front of.
template <class T>
T next(const char* name) {
    return reinterpret_cast<T>(dlsym(RTLD_NEXT, name));
}

std::string name_of(const void* kernel) {
    const char* name = nullptr;
    if (cudaFuncGetName(&name, kernel) == cudaSuccess && name != nullptr) return name;
    (void)cudaGetLastError();
    char address[32];
    std::snprintf(address, sizeof address, "%p", kernel);
    return address;
}

}  // namespace

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
    return cudaErrorStreamCaptureUnsupported;
}

// What <<<>>> becomes.
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** args, size_t shared,
                               cudaStream_t stream) {
    using F = cudaError_t (*)(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t);
    static F f = next<F>("__cudaLaunchKernel");
    return timed(name_of(reinterpret_cast<const void*>(kernel)), stream,
                 [&] { return f(kernel, grid, block, args, shared, stream); });
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* kernel, void** args) {
    using F = cudaError_t (*)(const cudaLaunchConfig_t*, const void*, void**);
    static F f = next<F>("cudaLaunchKernelExC");
    return timed(name_of(kernel), config->stream, [&] { return f(config, kernel, args); });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    using F = cudaError_t (*)(void*, const void*, size_t, cudaMemcpyKind, cudaStream_t);
    static F f = next<F>("cudaMemcpyAsync");
    return timed("cudaMemcpyAsync", stream, [&] { return f(to, from, bytes, kind, stream); });
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
    using F =
        cudaError_t (*)(void*, size_t, const void*, size_t, size_t, size_t, cudaMemcpyKind, cudaStream_t);
    static F f = next<F>("cudaMemcpy2DAsync");
    return timed("cudaMemcpy2DAsync", stream,
                 [&] { return f(to, to_pitch, from, from_pitch, width, height, kind, stream); });
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
    using F = cudaError_t (*)(void*, int, size_t, cudaStream_t);
    static F f = next<F>("cudaMemsetAsync");
    return timed("cudaMemsetAsync", stream, [&] { return f(to, value, bytes, stream); });
}

// Handles are opaque here, so that cuBLASLt's header is not needed; layouts are asked for their rows and columns.
int cublasLtMatmul(void* handle, void* operation, const void* alpha, const void* a, const void* a_layout,
                   const void* b, const void* b_layout, const void* beta, const void* c, const void* c_layout,
                   void* d, const void* d_layout, const void* algorithm, void* workspace,
                   size_t workspace_bytes, cudaStream_t stream) {
    using F =
        int (*)(void*, void*, const void*, const void*, const void*, const void*, const void*, const void*,
                const void*, const void*, void*, const void*, const void*, void*, size_t, cudaStream_t);
    static F f = next<F>("cublasLtMatmul");
    using Get = int (*)(const void*, int, void*, size_t, size_t*);
    static Get get = next<Get>("cublasLtMatrixLayoutGetAttribute");
    auto size = [](const void* layout) {
        constexpr int kRows = 2, kCols = 3;  // CUBLASLT_MATRIX_LAYOUT_ROWS, _COLS
        uint64_t rows = 0, cols = 0;
        size_t written = 0;
        get(layout, kRows, &rows, sizeof rows, &written);
        get(layout, kCols, &cols, sizeof cols, &written);
        return std::to_string(rows) + "x" + std::to_string(cols);
    };
    return timed("cublasLtMatmul " + size(a_layout) + " by " + size(b_layout) + " to " + size(d_layout),
                 stream, [&] {
                     return f(handle, operation, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d,
                              d_layout, algorithm, workspace, workspace_bytes, stream);
                 });
}

}  // extern "C"
