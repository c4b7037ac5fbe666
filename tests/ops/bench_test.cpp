// The op benchmark: its selection, its table and its JSON.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "bench/ops_bench.h"

namespace sana {
namespace {

cases::OpsBenchOptions quick(const std::string& filter) {
    cases::OpsBenchOptions options;
    options.filter = filter;
    options.seconds = 0;
    return options;
}

TEST(OpsBench, Json) {
    cases::OpsBenchOptions options = quick("rotate_half");
    options.json = true;
    options.dtypes = {DType::BF16};
    std::ostringstream out;
    EXPECT_EQ(cases::run_ops_bench(options, out), 0);
    nlohmann::json json = nlohmann::json::parse(out.str());
    EXPECT_GT(json.at("copy_gb_per_s").get<double>(), 0);
    EXPECT_GT(json.at("product_gflop_per_s").at("bf16").get<double>(), 0);
    ASSERT_EQ(json.at("lines").size(), 1u);
    const auto& line = json.at("lines")[0];
    EXPECT_EQ(line.at("op"), "rotate_half");
    EXPECT_EQ(line.at("dtype"), "bf16");
    EXPECT_GE(line.at("runs").get<int>(), 3);
    // x read, y written, and two tables of fp32: 2 * 300 * 2048 * 2 + 2 * 300 * 128 * 4 bytes.
    double ms = line.at("ms"), bytes = line.at("gb_per_s").get<double>() * ms * 1e6;
    EXPECT_NEAR(bytes, 2764800, 1);
    EXPECT_NEAR(line.at("gflop_per_s").get<double>() * ms * 1e6, 3.0 * 300 * 2048, 1);
}

TEST(OpsBench, TableAndFilter) {
    std::ostringstream out;
    cases::run_ops_bench(quick("timestep*"), out);
    EXPECT_NE(out.str().find("timestep_embedding"), std::string::npos) << out.str();
    EXPECT_EQ(out.str().find("linear"), std::string::npos) << out.str();
    EXPECT_EQ(out.str().find("timestep_embedding  bf16"), std::string::npos) << "fp32 and fp64 only";
}

TEST(OpsBench, NothingMatches) {
    std::ostringstream out;
    EXPECT_THROW(cases::run_ops_bench(quick("nothing"), out), InputError);
}

}  // namespace
}  // namespace sana
