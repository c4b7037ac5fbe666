#include "train/prefetch.h"

#include <gtest/gtest.h>

#include <atomic>

namespace sana {
namespace {

// Two samples a batch, numbered through; sample numbers divisible by `broken` cannot be read.
class Numbers : public Source {
public:
    explicit Numbers(int64_t broken) : broken_(broken) {}
    int64_t batches_per_epoch() const override { return 0; }
    Batch batch(int64_t position) const override {
        Batch b;
        b.bucket = {1, 1, 1};
        for (int64_t i = 0; i < 2; ++i) {
            Sample s;
            s.index = 2 * position + i;
            s.id = join("number ", s.index);
            b.samples.push_back(s);
        }
        return b;
    }
    Tensor video(const Sample& sample, const Bucket&) const override {
        if (broken_ > 0 && sample.index % broken_ == 0) fail_input(sample.id, " is broken");
        Tensor pixels = zeros({1, 1, 1, 3}, DType::U8);
        pixels.data<uint8_t>()[0] = static_cast<uint8_t>(sample.index);
        return pixels;
    }
    std::string fingerprint() const override { return "numbers"; }

private:
    int64_t broken_;
};

TEST(Prefetch, GivesBatchesInOrderFromAnyPositionAndStride) {
    Numbers source(0);
    for (int threads : {1, 3}) {
        Prefetch prefetch(source, 5, {.threads = threads, .ahead = 3, .stride = 2});
        for (int64_t position = 5; position < 25; position += 2) {
            Batch b = prefetch.next();
            EXPECT_EQ(b.samples[0].index, 2 * position);
            EXPECT_EQ(b.videos[1].data<uint8_t>()[0], 2 * position + 1);
        }
    }
}

TEST(Prefetch, ReplacesABrokenSampleByItsNeighbourAndSaysSo) {
    Numbers source(2);
    std::atomic<int> reports{0};
    Prefetch prefetch(source, 1, {.report = [&](const std::string& text) {
                          EXPECT_NE(text.find("is broken"), std::string::npos) << text;
                          ++reports;
                      }});
    Batch b = prefetch.next();
    EXPECT_EQ(b.samples[0].index, 3);
    EXPECT_EQ(b.samples[1].index, 3);
    EXPECT_EQ(b.videos[0].data<uint8_t>()[0], 3);
    EXPECT_GE(reports, 1);
}

TEST(Prefetch, ABatchWithoutAnyReadableSampleIsAnError) {
    Numbers source(1);
    Prefetch prefetch(source, 0);
    EXPECT_THROW(prefetch.next(), InputError);
}

}  // namespace
}  // namespace sana
