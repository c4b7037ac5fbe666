#include "bench/ops_bench.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "bench/harness.h"
#include "core/parallel.h"
#include "core/scope.h"
#include "ops/fp8.h"

namespace sana::cases {

namespace {

using Clock = std::chrono::steady_clock;

struct Timing {
    double median = 0;
    double best = 0;
    int64_t runs = 0;
};

// One run to warm up, then as many as fit. A device that works while the host goes on is given several runs at once, as
// many as take kBatchSeconds, so that neither the launches nor the waiting for the end count.
constexpr double kBatchSeconds = 0.02;

template <class F>
Timing timed(double seconds, Device device, F&& f) {
    auto batch = [&](int runs) {
        Clock::time_point start = Clock::now();
        for (int i = 0; i < runs; ++i) f();
        synchronise(device);
        return std::chrono::duration<double>(Clock::now() - start).count();
    };
    batch(1);
    int runs = 1;
    if (device != kCpu) runs = std::clamp(static_cast<int>(kBatchSeconds / batch(1)), 1, 1000);
    std::vector<double> times;
    double total = 0;
    while (times.size() < 3 || total < seconds) {
        double time = batch(runs);
        times.push_back(time / runs);
        total += time;
    }
    std::sort(times.begin(), times.end());
    return {times[times.size() / 2], times[0], static_cast<int64_t>(times.size())};
}

struct Line {
    std::string op, shape;
    DType dtype = DType::F32;
    Timing timing;
    double flops = 0, bytes = 0, roofline = 0;  // roofline: the least time, in seconds

    double share() const { return roofline / timing.median; }
};

double total_bytes(const Tensors& tensors) {
    double sum = 0;
    for (const Tensor& x : tensors) {
        if (x.defined()) sum += static_cast<double>(x.bytes());
    }
    return sum;
}

bool matches(const std::string& filter, const std::string& op, const std::string& shape) {
    return glob_match(filter, op) || glob_match(filter, op + " " + shape);
}

Line measured(const Case& one, const Instance& instance, DType dtype, const OpsBenchOptions& options) {
    Generator generator(dtype, true);
    Tensors in = prepare(instance.inputs(generator), dtype, options.device, false, false);
    Line line{one.name, instance.name, dtype, {}, instance.flops, 0, 0};
    Tensors y = instance.run(in);
    line.bytes = instance.bytes ? instance.bytes(in, y) : total_bytes(in) + total_bytes(y);
    y.clear();
    line.timing = timed(options.seconds, options.device, [&] { instance.run(in); });
    return line;
}

void print_line(std::ostream& out, const Line& line) {
    char text[160];
    double time = line.timing.median;
    std::snprintf(text, sizeof text, "%-19s %-5s %10.3f %9.1f %8.1f %7.0f%%  ", line.op.c_str(),
                  join(line.dtype).c_str(), time * 1e3, line.flops / time * 1e-9, line.bytes / time * 1e-9,
                  line.share() * 100);
    out << text << line.shape << "\n" << std::flush;
}

nlohmann::ordered_json object_of(const Line& line) {
    double time = line.timing.median;
    return {{"op", line.op},
            {"shape", line.shape},
            {"dtype", join(line.dtype)},
            {"ms", time * 1e3},
            {"best_ms", line.timing.best * 1e3},
            {"runs", line.timing.runs},
            {"gflop_per_s", line.flops / time * 1e-9},
            {"gb_per_s", line.bytes / time * 1e-9},
            {"roofline_share", line.share()}};
}

}  // namespace

double measured_bandwidth(Device device) {
    Tensor x = full({1024, int64_t{64} << 10}, 1, DType::F32, device);
    Tensor y = empty_like(x);
    return 2.0 * static_cast<double>(x.bytes()) / timed(0.5, device, [&] { copy(x, y); }).best;
}

double measured_product_speed(DType dtype, Device device) {
    const int64_t kSize = device == kCpu ? 2048 : 8192;
    bool codes = dtype == DType::F8E4M3;
    Generator generator(codes ? DType::BF16 : dtype, true);
    Tensor a = generator.normal({kSize, kSize}).value.to(device);
    Tensor b = generator.normal({kSize, kSize}).value.to(device);
    double flop = 2.0 * static_cast<double>(kSize * kSize * kSize);
    if (!codes) return flop / timed(0.5, device, [&] { linear(a, b); }).best;
    Fp8 x = quantise(a), w = quantise(b);
    return flop / timed(0.5, device, [&] { linear(x, w, {}, {}, DType::BF16); }).best;
}

int run_ops_bench(const OpsBenchOptions& options, std::ostream& out) {
    struct Task {
        const Case* one;
        const Instance* instance;
    };
    std::vector<Case> cases = all_cases();
    std::vector<Task> tasks;
    for (const Case& one : cases) {
        for (const Instance& instance : options.device == kCpu ? one.bench_cpu : one.bench_gpu) {
            if (matches(options.filter, one.name, instance.name)) tasks.push_back({&one, &instance});
        }
    }
    check_input(!tasks.empty(), "no op matches the filter ", options.filter,
                "; try * or a name such as linear");
    double bandwidth = measured_bandwidth(options.device);
    nlohmann::ordered_json json{{"device", join(options.device)},
                                {"threads", threads()},
                                {"copy_gb_per_s", bandwidth * 1e-9},
                                {"product_gflop_per_s", nlohmann::ordered_json::object()},
                                {"lines", nlohmann::ordered_json::array()}};
    std::map<DType, double> speed;
    for (DType dtype : options.dtypes) {
        speed[dtype] = measured_product_speed(dtype, options.device);
        json["product_gflop_per_s"][join(dtype)] = speed[dtype] * 1e-9;
    }
    if (!options.json) {
        char text[120];
        out << join(options.device, ", ", threads(), " threads; at best: copy ");
        std::snprintf(text, sizeof text, "%.1f GB/s", bandwidth * 1e-9);
        out << text;
        for (auto [dtype, value] : speed) {
            std::snprintf(text, sizeof text, ", product %s %.0f GFLOP/s", join(dtype).c_str(), value * 1e-9);
            out << text;
        }
        std::snprintf(text, sizeof text, "\n%-19s %-5s %10s %9s %8s %8s  %s\n", "op", "dtype", "ms",
                      "GFLOP/s", "GB/s", "roofline", "shape");
        out << text;
    }
    for (const Task& task : tasks) {
        for (DType dtype : options.dtypes) {
            if (std::count(task.one->dtypes.begin(), task.one->dtypes.end(), dtype) == 0) continue;
            Line line = measured(*task.one, *task.instance, dtype, options);
            line.roofline = std::max(line.bytes / bandwidth, line.flops / speed[dtype]);
            if (options.json) {
                json["lines"].push_back(object_of(line));
            } else {
                print_line(out, line);
            }
        }
    }
    if (options.json) out << json.dump(2) << "\n";
    return 0;
}

}  // namespace sana::cases
