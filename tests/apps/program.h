// The program run inside a test: its exit code and what it wrote.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "apps/commands.h"

namespace sana {

struct Outcome {
    int code;
    std::string out, err;
};

inline Outcome sana_run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "sana");
    std::vector<const char*> argv;
    for (const std::string& a : arguments) argv.push_back(a.c_str());
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    int code = apps::run(static_cast<int>(argv.size()), argv.data());
    std::string out = testing::internal::GetCapturedStdout(), err = testing::internal::GetCapturedStderr();
    return {code, out, err};
}

}  // namespace sana
