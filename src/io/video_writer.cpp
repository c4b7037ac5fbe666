#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "io/atomic_file.h"
#include "io/image.h"
#include "io/text_file.h"
#include "io/video_sink.h"

namespace sana {

namespace {

namespace fs = std::filesystem;

// YUV4MPEG2, 4:4:4, BT.601 limited range as the format's readers assume.
class Y4mSink : public VideoWriter::Sink {
public:
    Y4mSink(const std::string& path, const VideoWriterOptions& options)
        : path_(path), options_(options), file_(path) {}

    void append(const Tensor& frames) override {
        int64_t height = frames.dim(1), width = frames.dim(2), pixels = height * width;
        if (!started_) {
            file_.write(join("YUV4MPEG2 W", width, " H", height, " F", std::llround(options_.fps * 1000),
                             ":1000 Ip A1:1 C444\n"));
            started_ = true;
        }
        std::string planes(static_cast<size_t>(3 * pixels), '\0');
        for (int64_t t = 0; t < frames.dim(0); ++t) {
            const uint8_t* rgb = frames.data<uint8_t>() + t * pixels * 3;
            for (int64_t i = 0; i < pixels; ++i) {
                double r = rgb[3 * i], g = rgb[3 * i + 1], b = rgb[3 * i + 2];
                double y = 0.299 * r + 0.587 * g + 0.114 * b;
                auto put = [&](int64_t plane, double value) {
                    planes[static_cast<size_t>(plane * pixels + i)] =
                        static_cast<char>(static_cast<uint8_t>(std::clamp(value + 0.5, 0.0, 255.0)));
                };
                put(0, 16 + y * 219 / 255);
                put(1, 128 + (b - y) / 1.772 * 224 / 255);
                put(2, 128 + (r - y) / 1.402 * 224 / 255);
            }
            file_.write("FRAME\n");
            file_.write(planes);
        }
    }

    void finish() override {
        file_.commit();
        if (!options_.recipe.empty()) write_text_file(path_ + ".json", options_.recipe);
    }

private:
    std::string path_;
    VideoWriterOptions options_;
    AtomicFile file_;
    bool started_ = false;
};

// A folder of numbered pictures, written beside its name and moved there at the end.
class PngSink : public VideoWriter::Sink {
public:
    PngSink(const std::string& path, const VideoWriterOptions& options)
        : path_(path), options_(options), folder_(path + ".part") {
        check_input(!file_exists(path_) || (is_folder(path_) && fs::is_empty(path_)), path_,
                    ": is there already; choose another name or remove it");
        make_folders(folder_);
    }
    ~PngSink() override {
        std::error_code ignored;
        if (!finished_) fs::remove_all(folder_, ignored);
    }

    void append(const Tensor& frames) override {
        for (int64_t t = 0; t < frames.dim(0); ++t) {
            char name[32];
            std::snprintf(name, sizeof name, "/%05lld.png", static_cast<long long>(next_++));
            write_png(folder_ + name, frames.select(t));
        }
    }

    void finish() override {
        if (!options_.recipe.empty()) write_text_file(folder_ + "/recipe.json", options_.recipe);
        std::error_code error;
        fs::remove(path_, error);
        fs::rename(folder_, path_, error);
        check_input(!error, path_, ": cannot be written: ", error.message());
        finished_ = true;
    }

private:
    std::string path_;
    VideoWriterOptions options_;
    std::string folder_;
    int64_t next_ = 0;
    bool finished_ = false;
};

}  // namespace

std::string video_format(const std::string& path, const std::string& format) {
    std::string name = format;
    if (name.empty()) {
        name = fs::path(path).extension().string();
        if (!name.empty()) name = name.substr(1);
        if (path.ends_with("/") || is_folder(path)) name = "png";
    }
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    for (const char* known : {"mp4", "webm", "gif", "webp", "png", "y4m"}) {
        if (name == known) return name;
    }
    fail_input(path, ": '", name,
               "' is no video format of this program; use .mp4, .webm, .gif, .webp, .y4m or a folder for PNG "
               "frames");
}

VideoWriter::VideoWriter(const std::string& path, const VideoWriterOptions& options) {
    check_input(!path.empty(), "no output file given");
    check_input(options.fps >= 1 && options.fps <= 240, "fps is ", options.fps, "; 1 .. 240");
    check_input(options.quality >= 0 && options.quality <= 51, "quality is ", int64_t{options.quality},
                "; 0 .. 51");
    std::string format = video_format(path, options.format);
    std::string target = path.size() > 1 && path.ends_with("/") ? path.substr(0, path.size() - 1) : path;
    std::string folder = parent_folder(target);
    check_input(is_folder(folder), folder, ": no such folder, ", path, " cannot be written");
    if (format == "y4m") {
        sink_ = std::make_unique<Y4mSink>(target, options);
    } else if (format == "png") {
        sink_ = std::make_unique<PngSink>(target, options);
    } else {
        sink_ = encoded_sink(target, format, options);
    }
}

VideoWriter::~VideoWriter() = default;

void VideoWriter::append(const Tensor& frames) {
    check(frames.rank() == 4 && frames.dim(3) == 3 && frames.dtype() == DType::U8, "frames ", frames,
          " to a video");
    sink_->append(frames.contiguous());
}

void VideoWriter::finish() { sink_->finish(); }

std::optional<std::string> read_recipe(const std::string& path) {
    check_input(file_exists(path), path, ": no such file");
    std::string beside = is_folder(path) ? path + "/recipe.json" : path + ".json";
    if (file_exists(beside)) return read_text_file(beside, 1 << 20);
    return is_folder(path) ? std::nullopt : read_comment(path);
}

}  // namespace sana
