// Checks of an op that need nothing but its case.
#pragma once

#include <string>
#include <vector>

#include "bench/case.h"

namespace sana::cases {

// The inputs of an instance for one dtype, each in memory of its own on the device.
//   oracle: rounded to dtype and then widened to fp64 (sums: fp32, then fp64), so that the op in dtype and the oracle
//   see equal values;  strided: those that may have strided rows are columns of a wider tensor.
Tensors prepare(const Inputs& inputs, DType dtype, Device device, bool oracle, bool strided);

struct Difference {
    double l2 = 0;    // ||y - oracle|| / ||oracle||
    double peak = 0;  // max |y - oracle| / 99.9th percentile of |oracle|
};
Difference difference(const Tensor& y, const Tensor& oracle);

struct Report {
    std::vector<std::string> failures;  // empty: all is well
    struct Worst {
        DType dtype;
        Difference value;  // over all instances and outputs
    };
    std::vector<Worst> worst;
};

// For every instance: the op in fp64 agrees with the formula; then in every dtype of the case the op agrees with fp64 to
// the bounds, gives the same bits twice, leaves its inputs as they were, writes nothing outside its results (which hold
// NaN before), and takes strided rows where the instance says so.
Report check_case(const Case& one, Device device = kCpu);

}  // namespace sana::cases
