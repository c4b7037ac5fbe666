#include "train/data/bpe.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/check.h"
#include "text/tokenizer.h"
#include "train/world/caption.h"

namespace sana {
namespace {

TEST(WordCounts, CutsAtSpacesAndAtKindsOfCharacters) {
    WordCounts counts;
    counts.add("red star, red  star12.");
    std::map<std::string, int64_t> expected = {{"red", 1},       {"\u2581star", 2}, {",", 1},
                                               {"\u2581red", 1}, {"12", 1},         {".", 1}};
    EXPECT_EQ(counts.words(), expected);
}

TEST(TrainTokenizer, MergesTheMostFrequentNeighboursFirst) {
    WordCounts counts;
    counts.add("abc abc abc abd");
    auto json = nlohmann::json::parse(train_tokenizer(counts, 4 + 256 + 95 + 3));
    // ab is there four times and so is no other pair; then the pairs of three, by their bytes.
    EXPECT_EQ(json["model"]["merges"].dump(), "[[\"a\",\"b\"],[\"ab\",\"c\"],[\"\u2581\",\"abc\"]]");
    EXPECT_EQ(json["model"]["vocab"]["<bos>"], 2);
    EXPECT_EQ(train_tokenizer(counts, 400), train_tokenizer(counts, 400));
}

TEST(TrainTokenizer, CaptionWordsBecomeOnePieceAndEveryTextComesBack) {
    WordCounts counts;
    for (int64_t i = 0; i < 400; ++i) {
        world::Scene scene = world::make_scene(1, i, {33, 96, 160}, 16, world::Split::training);
        counts.add(world::make_caption(scene, 0).text);
    }
    counts.add(common_words(), 2);
    Tokenizer tokenizer = Tokenizer::parse(train_tokenizer(counts, 2500), "trained");
    EXPECT_LE(tokenizer.size(), 2500);
    auto ids = tokenizer.encode("a small red circle moves left over a blue background");
    EXPECT_EQ(ids.size(), 11u);  // <bos> and a piece a word
    EXPECT_EQ(ids[0], 2);
    for (const char* text :
         {"a small red circle", "A dog \xc3\xa9t\xc3\xa9 \xf0\x9f\x90\xb6 42!?", "two  spaces\nand a line"})
        EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
}

TEST(TrainTokenizer, TooSmallASizeIsAnError) {
    WordCounts counts;
    counts.add("red");
    EXPECT_THROW(train_tokenizer(counts, 300), InputError);
}

}  // namespace
}  // namespace sana
