// The file that remembers which kernels are fastest: what is put is found again, also by others; what is damaged is not.
#include "ops/choices.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "core/check.h"

namespace sana {
namespace {

namespace fs = std::filesystem;

class ChoicesTest : public testing::Test {
protected:
    void SetUp() override {
        folder_ = fs::path(testing::TempDir()) /
                  ("choices_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
        fs::remove_all(folder_);
        path_ = (folder_ / "deep" / "gemm.txt").string();
    }
    void TearDown() override {
        unsetenv("SANA_KERNEL_CACHE");
        fs::remove_all(folder_);
    }

    std::string text() const {
        std::ifstream file(path_);
        return {std::istreambuf_iterator<char>(file), {}};
    }
    void overwrite(const std::string& text) const { std::ofstream(path_) << text; }

    fs::path folder_;
    std::string path_;
};

TEST_F(ChoicesTest, RemembersInMemoryAndInTheFile) {
    Choices first(path_);
    EXPECT_FALSE(first.find("bf16 1x2x3"));
    first.put("bf16 1x2x3", "0a 0b");
    first.put("bf16 1x2x3", "0a 0c");
    first.put("fp32 1x2x3", "");
    EXPECT_EQ(first.find("bf16 1x2x3"), "0a 0c");
    Choices second(path_);
    EXPECT_EQ(second.find("bf16 1x2x3"), "0a 0c");
    EXPECT_EQ(second.find("fp32 1x2x3"), "");
    EXPECT_FALSE(second.find("bf16"));
    // Nothing but the file is left behind.
    EXPECT_EQ(std::distance(fs::directory_iterator(fs::path(path_).parent_path()), fs::directory_iterator()),
              1);
}

TEST_F(ChoicesTest, KeepsWhatAnotherProcessPutMeanwhile) {
    Choices a(path_), b(path_);
    a.put("x", "1");
    b.put("y", "2");
    b.put("x", "3");
    Choices c(path_);
    EXPECT_EQ(c.find("x"), "3");
    EXPECT_EQ(c.find("y"), "2");
}

TEST_F(ChoicesTest, IgnoresADamagedFileWithANoteAndReplacesIt) {
    Choices(path_).put("x", "1");
    std::string whole = text();
    std::string flipped = whole;
    flipped[whole.find("x\t1") + 2] = '2';
    for (const std::string& damaged : {std::string(), std::string("other\n"),
                                       whole.substr(0, whole.size() / 2), whole + "x\t2\n", flipped}) {
        overwrite(damaged);
        testing::internal::CaptureStderr();
        Choices choices(path_);
        std::string note = testing::internal::GetCapturedStderr();
        EXPECT_NE(note.find(path_), std::string::npos) << damaged;
        EXPECT_NE(note.find("ignored"), std::string::npos) << damaged;
        EXPECT_FALSE(choices.find("x")) << damaged;
        choices.put("x", "4");
        EXPECT_EQ(Choices(path_).find("x"), "4") << damaged;
    }
}

TEST_F(ChoicesTest, GoesOnWithoutAFileThatCannotBeWritten) {
    fs::create_directories(folder_);
    std::ofstream(folder_ / "deep") << "a file where a folder should be";
    Choices choices(path_);
    testing::internal::CaptureStderr();
    choices.put("x", "1");
    choices.put("y", "2");
    std::string note = testing::internal::GetCapturedStderr();
    EXPECT_EQ(choices.find("x"), "1");
    EXPECT_EQ(note.find("cannot be written"), note.rfind("cannot be written")) << note;
    EXPECT_NE(note.find("SANA_KERNEL_CACHE"), std::string::npos);
}

TEST_F(ChoicesTest, RefusesSeveralLines) {
    Choices choices("");
    EXPECT_THROW(choices.put("a\nb", "1"), Error);
    EXPECT_THROW(choices.put("a", "1\t2"), Error);
}

TEST_F(ChoicesTest, FolderFollowsTheEnvironment) {
    setenv("SANA_KERNEL_CACHE", "/somewhere", 1);
    EXPECT_EQ(choices_folder(), "/somewhere");
    EXPECT_TRUE(choices_wanted());
    setenv("SANA_KERNEL_CACHE", "memory", 1);
    EXPECT_FALSE(choices_folder());
    EXPECT_TRUE(choices_wanted());
    setenv("SANA_KERNEL_CACHE", "off", 1);
    EXPECT_FALSE(choices_wanted());
    unsetenv("SANA_KERNEL_CACHE");
    setenv("XDG_CACHE_HOME", "/cache", 1);
    EXPECT_EQ(choices_folder(), "/cache/sana");
    unsetenv("XDG_CACHE_HOME");
}

}  // namespace
}  // namespace sana
