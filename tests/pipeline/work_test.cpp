// The counts of the released models, against sums made by hand from the layers' shapes.
#include "pipeline/work.h"

#include <gtest/gtest.h>

#include "pipeline/presets.h"

using namespace sana;

TEST(Work, TransformerOfTheReleasedModels) {
    // A block of the 480p model on a guidance pair, in GFLOP: q, k, v 1972.5, three square products 657.5 each, linear
    // attention 65.8, cross attention 176.1, inverted 3945.0, depthwise 15.9, point 1972.5, temporal 1972.5; 37.6 outside
    // the blocks.
    Work sd = dit_work(find_preset("sana-video-2b-480p").dit, {2, 21, 60, 104, 16}, 300, 2);
    EXPECT_NEAR(sd.flop * 1e-9, 20 * 12092.9 + 37.6, 20 * 0.5);  // each of ten terms is rounded to 0.1
    // 19 passes over a hidden tensor of 293.5 MB.
    EXPECT_NEAR(sd.bytes * 1e-6, 20 * 19 * 293.53, 20 * 19 * 0.01);
    Work hd = dit_work(find_preset("sana-video-2b-720p").dit, {2, 11, 22, 40, 128}, 300, 2);
    EXPECT_NEAR(hd.flop * 1e-12, 71.7,
                0.25);  // that figure holds the prompt's keys and values, 0.24, and not the ends
    EXPECT_LT(sd.product, sd.flop);
    // Of a pair with the same latents: q, k, v, out and linear attention of one block, for half of the rows, less, and half of
    // the way in, 2 * 64 * 2240 a token.
    Work pair = dit_work(find_preset("sana-video-2b-480p").dit, {1, 21, 60, 104, 16}, 300, 2, 2);
    EXPECT_NEAR((sd.flop - pair.flop) * 1e-9, (1972.5 + 657.5 + 65.8) / 2 + 9.4, 0.1);
    EXPECT_NEAR((sd.bytes - pair.bytes) * 1e-6, 6 * 293.53 / 2, 0.1);
}

TEST(Work, DecodersOfTheReleasedModels) {
    Work wan = decode_work(find_preset("sana-video-2b-480p").vae, {1, 21, 60, 104, 16});
    EXPECT_NEAR(wan.flop * 1e-12, 275.4, 0.5);
    Work ltx2 = decode_work(find_preset("sana-video-2b-720p").vae, {1, 11, 22, 40, 128});
    EXPECT_NEAR(ltx2.flop * 1e-12, 92.9, 0.5);
}

TEST(Work, TextGrowsWithItsLength) {
    const Gemma2Config& config = find_preset("sana-video-2b-480p").text;
    Work one = text_work(config, {300}), two = text_work(config, {300, 300});
    EXPECT_DOUBLE_EQ(two.flop, 2 * one.flop);
    // 26 layers of 77.9 M weights each, two operations a weight and token.
    EXPECT_NEAR(one.product, 300.0 * 26 * 2 * (2304.0 * (2048 + 1024 + 1024 + 2048) + 3 * 2304.0 * 9216),
                1e6);
}
