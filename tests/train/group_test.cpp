// Processes that train together.
#include "train/group.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "core/parallel.h"
#include "ops/tape.h"

using namespace sana;

namespace {

// Runs body in every process of the group; those of ranks above 0 end with it, failing when it fails.
template <class F>
void run(Group& group, F body) {
    int before = threads();
    group.start();
    if (group.rank() == 0) {
        body();
        return;
    }
    set_threads(1);  // a split process has lost the threads
    int code = 1;
    try {
        body();
        code = testing::Test::HasFailure() ? 1 : 0;
    } catch (...) {
        code = 2;
    }
    set_threads(before);
    _exit(code);
}

// Different in every process and element; sums of a few are exact.
Tensor numbers(int64_t n, int rank) {
    std::vector<float> values(static_cast<size_t>(n));
    for (size_t i = 0; i < values.size(); ++i)
        values[i] = static_cast<float>(static_cast<int>(i % 1000) * (rank + 1) + rank);
    return from_vector(values, {n});
}

}  // namespace

TEST(Group, SumsOverProcessesInPieces) {
    for (int size : {1, 2, 3}) {
        Group group(size, 4096 * 2);  // pieces of 2,048 elements
        run(group, [&] {
            for (int64_t n : {1, 2047, 2048, 10001}) {
                Tensor x = numbers(n, group.rank());
                group.sum(x);
                std::vector<float> got = to_vector<float>(x), wanted(got.size(), 0);
                for (int r = 0; r < size; ++r) {
                    std::vector<float> part = to_vector<float>(numbers(n, r));
                    for (size_t i = 0; i < part.size(); ++i) wanted[i] += part[i];
                }
                EXPECT_EQ(got, wanted) << n;
            }
            std::vector<double> values{1.5, static_cast<double>(group.rank())};
            group.sum(values);
            EXPECT_EQ(values, (std::vector<double>{1.5 * size, size * (size - 1) / 2.0}));
        });
        EXPECT_NO_THROW(group.finish());
    }
}

TEST(Group, ALostProcessEndsTheOthersWaits) {
    {
        Group group(2);
        EXPECT_THROW(run(group,
                         [&] {
                             if (group.rank() == 1) _exit(0);  // as if it were killed
                             Tensor x = numbers(5, 0);
                             group.sum(x);
                         }),
                     Error);
    }
    Group group(2);
    run(group, [&] {
        if (group.rank() == 1) fail("this process fails");
    });
    EXPECT_THROW(group.finish(), Error);
}
