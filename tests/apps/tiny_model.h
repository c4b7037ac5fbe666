// Tests of commands that need a model: a folder of their own with a small random one in it, made once a suite.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "apps/program.h"

namespace sana {

class TinyModel : public ::testing::Test {
protected:
    static void SetUpTestSuite() {
        std::filesystem::remove_all(folder());
        std::filesystem::create_directories(folder());
        ASSERT_EQ(sana_run({"--quiet", "init", "--preset", "tiny", "--random", "--out", model()}).code, 0);
    }
    // By the name of the suite.
    static std::string folder() {
        std::string name = ::testing::UnitTest::GetInstance()->current_test_suite()->name();
        return (std::filesystem::path(::testing::TempDir()) / ("sana_" + name)).string();
    }
    static std::string model() { return folder() + "/tiny"; }
};

}  // namespace sana
