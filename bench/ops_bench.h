// Times every op at the sizes of its case, against what this machine could do at best.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace sana::cases {

struct OpsBenchOptions {
    std::string filter = "*";  // glob over "op shape"; a filter without * is an op's whole name
    Device device = kCpu;
    std::vector<DType> dtypes = {DType::F32, DType::BF16};
    double seconds = 0.5;  // spent on each line, but at least three runs
    bool json = false;     // one object instead of a table
};

// The two ceilings of the roofline, measured: a copy of 256 MiB (bytes read and written) and a square matrix
// product in a dtype, of 2048 on the CPU and 8192 on other devices.
double measured_bandwidth(Device device);                   // bytes / s
double measured_product_speed(DType dtype, Device device);  // flop / s

// Writes a line an op, shape and dtype: the median time, arithmetic and memory speed, and the share of the roofline,
// max(bytes / bandwidth, flops / product speed) / time. Data that fits the caches can have a share above 100%.
// Returns 0; throws InputError when the filter matches nothing.
int run_ops_bench(const OpsBenchOptions& options, std::ostream& out);

}  // namespace sana::cases
