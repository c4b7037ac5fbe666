// Where tests find files. SANA_TESTS names the folder `tests` of a source tree for programs that run elsewhere than they were
// built; SANA_GOLDENS another folder of reference files of the same form.
#pragma once

#include <cstdlib>
#include <string>

namespace sana::test {

inline std::string tests_folder() {
    const char* folder = std::getenv("SANA_TESTS");
    return folder != nullptr ? folder : SANA_TEST_DIR;
}

// The reference files of the repository.
inline std::string own_golden_folder() { return tests_folder() + "/goldens"; }

inline std::string golden_folder() {
    const char* folder = std::getenv("SANA_GOLDENS");
    return folder != nullptr ? folder : own_golden_folder();
}

}  // namespace sana::test
