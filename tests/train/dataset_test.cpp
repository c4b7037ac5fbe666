// Datasets of files: what is read, what is left out and said, the order, the cache.
#include "train/data/dataset.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "../media.h"
#include "io/image.h"
#include "io/text_file.h"
#include "io/video.h"
#include "train/data/cache.h"
#include "train/prefetch.h"

using namespace sana;
namespace fs = std::filesystem;

namespace {

std::string folder(const std::string& name) {
    fs::path path = fs::path(::testing::TempDir()) / ("sana_dataset_" + name);
    fs::remove_all(path);
    fs::create_directories(path);
    return path.string();
}

// Frame t of a clip is grey of the level first + step * t.
Tensor clip(int64_t frames, int64_t height, int64_t width, int first = 20, int step = 5) {
    Tensor out = empty({frames, height, width, 3}, DType::U8);
    int64_t each = height * width * 3;
    for (int64_t i = 0; i < out.numel(); ++i)
        out.data<uint8_t>()[i] = static_cast<uint8_t>(first + step * (i / each));
    return out;
}

void write_clip(const std::string& path, const Tensor& frames, double fps = 16) {
    VideoWriter writer(path, {.format = "", .fps = fps, .quality = 1, .recipe = {}});
    writer.append(frames);
    writer.finish();
}

// The middle of the picture, cut or extended by repetition: enough for grey clips.
Tensor middle(const Tensor& picture, int64_t height, int64_t width) {
    Tensor out = empty({height, width, 3}, DType::U8);
    for (int64_t y = 0; y < height; ++y)
        for (int64_t x = 0; x < width; ++x)
            for (int64_t c = 0; c < 3; ++c)
                out.data<uint8_t>()[(y * width + x) * 3 + c] =
                    picture.data<uint8_t>()[(std::min(y, picture.dim(0) - 1) * picture.dim(1) +
                                             std::min(x, picture.dim(1) - 1)) *
                                                3 +
                                            c];
    return out;
}

struct Reports {
    std::vector<std::string> texts;
    bool has(const std::string& a, const std::string& b) const {
        for (const std::string& text : texts)
            if (text.find(a) != std::string::npos && text.find(b) != std::string::npos) return true;
        return false;
    }
};

DatasetOptions options(const std::string& path, Reports& reports) {
    DatasetOptions o;
    o.path = path;
    o.buckets = {{9, 32, 48}, {5, 32, 48}, {9, 48, 32}, {1, 32, 32}};
    o.batch = 2;
    o.fit = middle;
    o.report = [&](const std::string& text) { reports.texts.push_back(text); };
    return o;
}

TEST(Dataset, AFolderOfClipsAndPicturesWithTheirCaptions) {
    NEEDS_FFMPEG;
    std::string path = folder("mixed");
    write_clip(path + "/a.y4m", clip(12, 32, 48));
    write_text_file(path + "/a.txt", "a grey clip\nthat brightens\n");
    write_text_file(path + "/a.json", R"({"captions": ["a grey clip that brightens", "it brightens"]})");
    write_clip(path + "/b.y4m", clip(6, 33, 47));
    write_text_file(path + "/b.txt", "short and odd");
    fs::create_directories(path + "/more");
    write_clip(path + "/more/tall.y4m", clip(9, 60, 30));
    write_text_file(path + "/more/tall.txt", "tall");
    write_png(path + "/still.png", clip(1, 20, 20).select(0));
    write_text_file(path + "/still.txt", "a picture");
    Reports reports;
    Dataset set(options(path, reports));
    EXPECT_TRUE(reports.texts.empty()) << reports.texts[0];
    auto counts = set.counts();
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(counts[i].second, 1) << i;
    EXPECT_EQ(set.batches_per_epoch(), 4);
    std::set<std::string> ids;
    for (int64_t i = 0; i < 4; ++i) {
        Batch batch = batch_with_pixels(set, i);
        ASSERT_EQ(batch.samples.size(), 2u);
        ids.insert(batch.samples[0].id);
        EXPECT_TRUE(batch.videos[0].shape() ==
                    (Shape{batch.bucket.frames, batch.bucket.height, batch.bucket.width, 3}));
        // y4m is limited-range: a level comes back within one.
        for (int64_t t = 0; t < batch.bucket.frames; ++t)
            EXPECT_NEAR(batch.videos[0].select(t).data<uint8_t>()[0], 20 + 5 * t, 1.01)
                << batch.samples[0].id;
        if (batch.samples[0].id == "a.y4m") {
            EXPECT_EQ(batch.samples[0].captions,
                      (std::vector<std::string>{"a grey clip that brightens", "it brightens"}));
        }
    }
    EXPECT_EQ(ids, (std::set<std::string>{"a.y4m", "b.y4m", "more/tall.y4m", "still.png"}));
}

TEST(Dataset, LinesOfJson) {
    NEEDS_FFMPEG;
    std::string path = folder("lines");
    write_clip(path + "/a.y4m", clip(9, 32, 48));
    write_text_file(path + "/set.jsonl",
                    "{\"video\": \"a.y4m\", \"caption\": \"one\"}\n\n{\"file_name\": \"a.y4m\", \"text\": "
                    "[\"two\", \"three\"]}\n"
                    "not json\n{\"caption\": \"no file\"}\n{\"video\": \"missing.mp4\", \"caption\": "
                    "\"x\"}\n{\"video\": \"a.y4m\"}\n");
    Reports reports;
    Dataset set(options(path + "/set.jsonl", reports));
    EXPECT_EQ(set.counts()[0].second, 2);
    EXPECT_EQ(set.left_out(), 4);
    EXPECT_TRUE(reports.has("line 4", "names no file"));
    EXPECT_TRUE(reports.has("line 5", "names no file"));
    EXPECT_TRUE(reports.has("missing.mp4", "no such file"));
    EXPECT_TRUE(reports.has("a.y4m", "has no caption"));
}

TEST(Dataset, WhatCannotBeUsedIsSaidAndLeftOut) {
    NEEDS_FFMPEG;
    std::string path = folder("broken");
    write_clip(path + "/good.mp4", clip(9, 32, 48));
    write_clip(path + "/short.mp4", clip(3, 32, 48));
    write_clip(path + "/silent.mp4", clip(9, 32, 48));
    std::ofstream(path + "/empty.mp4");
    std::ofstream(path + "/text.mp4") << "this is no video";
    fs::copy(path + "/good.mp4", path + "/cut.mp4");
    fs::resize_file(path + "/cut.mp4", 300);
    for (const char* name : {"good", "short", "empty", "text", "cut"})
        write_text_file(path + "/" + name + ".txt", "words");
    write_text_file(path + "/silent.txt", " \n");
    Reports reports;
    DatasetOptions o = options(path, reports);
    o.buckets = {{5, 32, 48}};
    Dataset set(o);
    EXPECT_EQ(set.counts()[0].second, 1);
    EXPECT_EQ(set.left_out(), 5);
    EXPECT_TRUE(reports.has("short.mp4", "has 3 frames at 16 a second, the shortest bucket has 5"));
    EXPECT_TRUE(reports.has("silent.mp4", "has no caption"));
    EXPECT_TRUE(reports.has("empty.mp4", "is empty"));
    EXPECT_TRUE(reports.has("text.mp4", "left out"));
    EXPECT_TRUE(reports.has("cut.mp4", "left out"));
    // What disappears later is reported by the reader of batches.
    fs::remove(path + "/good.mp4");
    EXPECT_THROW(batch_with_pixels(set, 0, o.report), InputError);
    EXPECT_TRUE(reports.has("good.mp4", "no such file"));
    fs::remove_all(path);
    fs::create_directories(path);
    EXPECT_THROW(Dataset{o}, InputError);
    o.path = path + "/nowhere";
    EXPECT_THROW(Dataset{o}, InputError);
}

// Clips of kinds that this program does not write come from the ffmpeg program, where there is one.
TEST(Dataset, VariableRatesTenBitsAndOtherRates) {
    NEEDS_FFMPEG;
    if (std::system("ffmpeg -version > /dev/null 2>&1") != 0) GTEST_SKIP() << "no ffmpeg program here";
    std::string path = folder("kinds");
    auto make = [&](const std::string& name, const std::string& arguments) {
        std::string command = "ffmpeg -v error -y -f lavfi -i testsrc=duration=1:size=48x32:rate=32 " +
                              arguments + " '" + path + "/" + name + "'";
        ASSERT_EQ(std::system(command.c_str()), 0) << command;
        write_text_file(path + "/" + fs::path(name).stem().string() + ".txt", "a test picture");
    };
    make("ten_bit.mkv", "-pix_fmt yuv444p10le -c:v ffv1");
    make("variable.mkv", "-vf \"select='lt(n,10)+not(mod(n,4))'\" -fps_mode vfr -c:v ffv1");
    make("fast.mkv", "-c:v ffv1");
    Reports reports;
    DatasetOptions o = options(path, reports);
    o.buckets = {{9, 32, 48}};
    o.batch = 3;
    Dataset set(o);
    EXPECT_EQ(set.counts()[0].second, 3);
    EXPECT_TRUE(reports.has("variable.mkv", "variable frame rate"));
    EXPECT_EQ(reports.texts.size(), 1u);
    // Frame k of all three is what stands at k / 16 s: frames 2 k of 32 a second; every fourth from the tenth on.
    Tensor frames = read_video(path + "/fast.mkv", 100).frames;
    Batch batch = batch_with_pixels(set, 0);
    for (size_t i = 0; i < 3; ++i) {
        for (int64_t k = 0; k < 9; ++k) {
            int64_t n = 2 * k;
            if (batch.samples[i].id == "variable.mkv" && n >= 10) n = n / 4 * 4 < 10 ? 9 : n / 4 * 4;
            Tensor shown = batch.videos[i].select(k), wanted = frames.select(n);
            double sum = 0;
            for (int64_t j = 0; j < shown.numel(); ++j)
                sum += std::abs(shown.data<uint8_t>()[j] - wanted.data<uint8_t>()[j]);
            // Lossless in RGB; luma and chroma of limited range are good to two levels.
            EXPECT_LE(sum / static_cast<double>(shown.numel()), batch.samples[i].id == "ten_bit.mkv" ? 2 : 0)
                << batch.samples[i].id << " frame " << k;
        }
    }
}

TEST(Dataset, TheOrderIsAFunctionOfSeedAndPosition) {
    NEEDS_FFMPEG;
    std::string path = folder("order");
    for (int i = 0; i < 7; ++i) {
        std::string base = path + "/c" + std::to_string(i);
        write_clip(base + ".y4m", clip(5, 16, 24, 10 * i, 1));
        write_text_file(base + ".txt", "clip " + std::to_string(i));
    }
    Reports reports;
    DatasetOptions o = options(path, reports);
    o.index = path + "/index.json";
    Dataset set(o), again(o);
    EXPECT_EQ(set.batches_per_epoch(), 4);
    EXPECT_EQ(set.fingerprint(), again.fingerprint());
    auto ids = [](const Dataset& from, int64_t position) {
        Batch batch = from.batch(position);
        return batch.samples[0].id + " " + batch.samples[1].id;
    };
    std::vector<std::string> epochs[2];
    for (int64_t i = 0; i < 8; ++i) epochs[i / 4].push_back(ids(set, i));
    for (int64_t i = 7; i >= 0; --i) EXPECT_EQ(ids(again, i), epochs[i / 4][static_cast<size_t>(i % 4)]);
    EXPECT_NE(epochs[0], epochs[1]);
    std::set<std::string> seen;
    for (int64_t i = 0; i < 4; ++i)
        for (const Sample& s : set.batch(i).samples) seen.insert(s.id);
    EXPECT_EQ(seen.size(), 7u);
    // Training and held-out share the samples between them.
    o.held_out = 0.5;
    Dataset training(o);
    std::unique_ptr<Dataset> held_out = training.held_out();
    std::set<std::string> in_training, outside;
    for (int64_t i = 0; i < training.batches_per_epoch(); ++i)
        for (const Sample& s : training.batch(i).samples) in_training.insert(s.id);
    for (int64_t i = 0; i < held_out->batches_per_epoch(); ++i)
        for (const Sample& s : held_out->batch(i).samples) outside.insert(s.id);
    EXPECT_EQ(in_training.size() + outside.size(), 7u);
    for (const std::string& id : outside) EXPECT_EQ(in_training.count(id), 0u) << id;
    EXPECT_NE(training.fingerprint(), held_out->fingerprint());
    EXPECT_THROW(set.held_out(), InputError);
    o.held_out = 1;
    EXPECT_THROW(Dataset{o}, InputError);
    // A file that changes is looked at again, in spite of the index.
    write_clip(path + "/c0.y4m", clip(2, 16, 24));
    reports.texts.clear();
    Dataset changed(options(path, reports));
    EXPECT_TRUE(reports.has("c0.y4m", "has 2 frames"));
}

TEST(Dataset, BucketsAreParsed) {
    auto buckets = parse_buckets("33x96x160,1x64x64");
    ASSERT_EQ(buckets.size(), 2u);
    EXPECT_TRUE((buckets[0] == Bucket{33, 96, 160}));
    for (const char* bad : {"", "33x96", "33x96x160x2", "0x96x160", "a", "33,96,160"})
        EXPECT_THROW(parse_buckets(bad), InputError) << bad;
}

TEST(TensorCache, KeepsByContentAndMakesAnewWhatIsDamaged) {
    std::string path = folder("cache");
    std::vector<std::string> reports;
    auto report = [&](const std::string& text) { reports.push_back(text); };
    int made = 0;
    auto make = [&] {
        ++made;
        return TensorMap{{"latent", full({2, 3}, made, DType::F32)}};
    };
    TensorCache cache(path, "encoder 1", report);
    EXPECT_EQ(cache.get("clip a", make).at("latent").data<float>()[0], 1);
    EXPECT_EQ(cache.get("clip a", make).at("latent").data<float>()[0], 1);
    EXPECT_EQ(cache.hits(), 1);
    EXPECT_EQ(cache.get("clip b", make).at("latent").data<float>()[0], 2);
    // Another encoder finds nothing of the first one's.
    EXPECT_EQ(TensorCache(path, "encoder 2", report).get("clip a", make).at("latent").data<float>()[0], 3);
    for (const auto& item : fs::recursive_directory_iterator(path))
        if (item.is_regular_file()) fs::resize_file(item.path(), 20);
    EXPECT_EQ(cache.get("clip a", make).at("latent").data<float>()[0], 4);
    EXPECT_EQ(reports.size(), 1u);
    EXPECT_EQ(cache.get("clip a", make).at("latent").data<float>()[0], 4);
}

TEST(TensorCache, AFullDiskIsSaidOnceAndTheRunGoesOn) {
    std::string path = folder("full");
    std::vector<std::string> reports;
    TensorCache cache(path, "encoder", [&](const std::string& text) { reports.push_back(text); });
    // A limit on the size of files stands for the disk.
    auto handler = std::signal(SIGXFSZ, SIG_IGN);
    rlimit before{};
    getrlimit(RLIMIT_FSIZE, &before);
    rlimit small{1000, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
    auto make = [] { return TensorMap{{"latent", full({1000}, 7, DType::F32)}}; };
    float value = cache.get("a", make).at("latent").data<float>()[999];
    cache.get("b", make);
    setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
    EXPECT_EQ(value, 7);
    ASSERT_EQ(reports.size(), 1u);
    EXPECT_NE(reports[0].find("nothing more is kept"), std::string::npos) << reports[0];
    for (const auto& item : fs::recursive_directory_iterator(path))
        EXPECT_FALSE(item.is_regular_file()) << item.path();
}

}  // namespace
