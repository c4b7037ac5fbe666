#include "io/video.h"
#include "../media.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "core/check.h"
#include "io/image.h"

using namespace sana;
namespace fs = std::filesystem;

namespace {

// A soft coloured square over a gradient, moving to the right.
Tensor clip(int64_t frames, int64_t height, int64_t width) {
    Tensor out = empty({frames, height, width, 3}, DType::U8);
    for (int64_t t = 0; t < frames; ++t) {
        for (int64_t h = 0; h < height; ++h) {
            for (int64_t w = 0; w < width; ++w) {
                double d =
                    std::hypot(static_cast<double>(h - height / 2), static_cast<double>(w - 8 - 2 * t));
                double s = 1 / (1 + std::exp((d - 8) / 2));
                uint8_t* p = out.data<uint8_t>() + ((t * height + h) * width + w) * 3;
                p[0] = static_cast<uint8_t>(60 + 180 * s);
                p[1] = static_cast<uint8_t>(40 + 100 * static_cast<double>(w) / static_cast<double>(width));
                p[2] = static_cast<uint8_t>(200 - 150 * s);
            }
        }
    }
    return out;
}

double psnr(const Tensor& a, const Tensor& b) {
    double sum = 0;
    for (int64_t i = 0; i < a.numel(); ++i) {
        double d = double{static_cast<double>(a.data<uint8_t>()[i])} - b.data<uint8_t>()[i];
        sum += d * d;
    }
    return sum == 0 ? 99 : 10 * std::log10(255.0 * 255.0 * static_cast<double>(a.numel()) / sum);
}

std::string target(const std::string& name) {
    std::string path = ::testing::TempDir() + "sana_video_" + name;
    fs::remove_all(path);
    fs::remove_all(path + ".json");
    return path;
}

std::string bytes_of(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

void write(const std::string& path, const Tensor& frames, const VideoWriterOptions& options) {
    VideoWriter writer(path, options);
    for (int64_t t = 0; t < frames.dim(0); t += 4)
        writer.append(frames.outer_slice(t, std::min<int64_t>(4, frames.dim(0) - t)));
    writer.finish();
}

const std::string kRecipe = R"({"prompt": "a \"red\" kite — 凧 \\ 🪁", "seed": 7, "filler": ")" +
                            std::string(20000, 'x') + "\"}";

}  // namespace

TEST(Video, RoundTripOfEveryFormat) {
    NEEDS_FFMPEG;
    // Lower bounds on PSNR: H.264 and VP9 at CRF 18 subsample colour; webp at quality 64; 256 colours in gif.
    for (auto [name, bound] : {std::pair("a.mp4", 36.0), std::pair("a.webm", 34.0), std::pair("a.gif", 16.0),
                               std::pair("a.webp", 28.0)}) {
        SCOPED_TRACE(name);
        std::string path = target(name);
        Tensor frames = clip(9, 48, 64);
        write(path, frames, {.format = "", .fps = 12, .quality = 18, .recipe = kRecipe});
        EXPECT_EQ(read_recipe(path), kRecipe);
        if (std::string(name) == "a.webp")
            continue;  // this FFmpeg encodes animated WebP but does not decode it
        VideoFrames back = read_video(path, 100);
        ASSERT_EQ(back.frames.shape(), frames.shape());
        EXPECT_GT(psnr(back.frames, frames), bound);
        EXPECT_NEAR(back.fps, 12, 0.6);  // gif stores hundredths of a second
        EXPECT_EQ(read_video(path, 3).frames.dim(0), 3);
    }
}

TEST(Video, PngSequenceIsExact) {
    NEEDS_FFMPEG;
    std::string path = target("frames");
    Tensor frames = clip(3, 10, 14);
    write(path + "/", frames, {.format = "", .fps = 16, .quality = 18, .recipe = kRecipe});
    for (int64_t t = 0; t < 3; ++t) {
        Tensor back = read_image(path + "/0000" + std::to_string(t) + ".png");
        EXPECT_EQ(max_abs_difference(back, frames.select(t)), 0.0);
    }
    EXPECT_EQ(read_recipe(path), kRecipe);
    EXPECT_THROW(write(path + "/", frames, {}), InputError);  // is there already
}

TEST(Video, Y4mIsReadByOthers) {
    NEEDS_FFMPEG;
    std::string path = target("a.y4m");
    Tensor frames = clip(3, 10, 15);
    write(path, frames, {.format = "", .fps = 16, .quality = 18, .recipe = kRecipe});
    VideoFrames back = read_video(path, 10);
    ASSERT_EQ(back.frames.shape(), frames.shape());
    EXPECT_GT(psnr(back.frames, frames), 40);
    EXPECT_EQ(read_recipe(path), kRecipe);
}

TEST(Video, Mp4PlaysEverywhere) {
    NEEDS_FFMPEG;
    std::string path = target("b.mp4");
    write(path, clip(5, 33, 47), {});  // odd sides are padded by one
    std::string bytes = bytes_of(path);
    EXPECT_LT(bytes.find("moov"), bytes.find("mdat"));
    EXPECT_EQ(read_video(path, 100).frames.shape(), (Shape{5, 34, 48, 3}));
    EXPECT_FALSE(read_recipe(path).has_value());
    std::string again = target("c.mp4");
    write(again, clip(5, 33, 47), {});
    EXPECT_EQ(bytes, bytes_of(again));
    std::string one = target("one.mp4");
    write(one, clip(1, 16, 16), {});
    EXPECT_EQ(read_video(one, 100).frames.dim(0), 1);
}

// Flat colours come back within what 8-bit limited-range YUV can hold.
TEST(Video, ColoursSurvive) {
    NEEDS_FFMPEG;
    std::string path = target("colours.mp4");
    const uint8_t colours[][3] = {{255, 0, 0},     {0, 255, 0}, {0, 0, 255},   {128, 128, 128},
                                  {255, 255, 255}, {0, 0, 0},   {250, 200, 20}};
    for (const auto& colour : colours) {
        Tensor frames = empty({2, 32, 32, 3}, DType::U8);
        for (int64_t i = 0; i < frames.numel(); ++i) frames.data<uint8_t>()[i] = colour[i % 3];
        write(path, frames, {.format = "", .fps = 16, .quality = 10, .recipe = ""});
        EXPECT_LE(max_abs_difference(read_video(path, 1).frames, frames.outer_slice(0, 1)), 4.0)
            << int(colour[0]) << ' ' << int(colour[1]) << ' ' << int(colour[2]);
    }
}

TEST(Video, NothingIsLeftWithoutFinish) {
    NEEDS_FFMPEG;
    std::string path = target("unfinished.mp4");
    {
        VideoWriter writer(path, {});
        writer.append(clip(2, 16, 16));
    }
    EXPECT_FALSE(fs::exists(path));
    for (const auto& entry : fs::directory_iterator(::testing::TempDir())) {
        EXPECT_EQ(entry.path().string().find("unfinished"), std::string::npos) << entry.path();
    }
}

TEST(Video, BadPlacesAndFormats) {
    EXPECT_THROW(VideoWriter("/nowhere/at/all.mp4", {}), InputError);
    EXPECT_THROW(VideoWriter(target("a.avi"), {}), InputError);
    EXPECT_THROW(VideoWriter(target("noextension"), {}), InputError);
    EXPECT_THROW(VideoWriter("", {}), InputError);
    EXPECT_THROW(VideoWriter(target("x.mp4"), {.format = "", .fps = 0, .quality = 18, .recipe = ""}),
                 InputError);
    EXPECT_THROW(VideoWriter(target("x.mp4"), {.format = "", .fps = 16, .quality = 99, .recipe = ""}),
                 InputError);
}

TEST(Video, DamagedFilesAreRefused) {
    NEEDS_FFMPEG;
    std::string good = target("good.mp4"), png = target("good.png"), bad = target("bad.mp4");
    write(good, clip(9, 48, 64), {});
    write_png(png, clip(1, 48, 64).select(0));
    EXPECT_THROW(read_video("/nowhere.mp4", 1), InputError);
    EXPECT_THROW(read_image(::testing::TempDir()), InputError);
    for (const std::string& source : {bytes_of(good), bytes_of(png)}) {
        for (size_t length : {size_t{0}, size_t{1}, size_t{20}, size_t{60}, source.size() / 3}) {
            std::ofstream(bad, std::ios::binary) << source.substr(0, length);
            // A part may decode; what must not happen is a crash or another kind of exception.
            try {
                EXPECT_GT(read_image(bad).numel(), 0);
            } catch (const InputError&) {
            }
            if (length <= 20) {
                EXPECT_THROW(read_image(bad), InputError) << length;
            }
        }
    }
    std::ofstream(bad, std::ios::binary) << std::string(5000, 'z');
    EXPECT_THROW(read_image(bad), InputError);
}
