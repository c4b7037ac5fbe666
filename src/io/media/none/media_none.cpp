// Pictures and video in a build without FFmpeg: y4m can be written, the rest says what is missing.
#include "io/image.h"
#include "io/video_sink.h"

namespace sana {

namespace {

[[noreturn]] void no_ffmpeg(const std::string& path) {
    fail_input(
        path,
        ": this build has no FFmpeg (SANA_VIDEO=OFF); write a .y4m file, or build with -DSANA_VIDEO=ON");
}

}  // namespace

Tensor read_image(const std::string& path) { no_ffmpeg(path); }
void write_png(const std::string& path, const Tensor&) { no_ffmpeg(path); }
void check_png(const std::string& path) { no_ffmpeg(path); }
VideoFrames read_video(const std::string& path, int64_t) { no_ffmpeg(path); }
void read_frames(const std::string& path, const std::function<bool(const Tensor&, double)>&) {
    no_ffmpeg(path);
}
std::optional<std::string> read_comment(const std::string&) { return std::nullopt; }
std::unique_ptr<VideoWriter::Sink> encoded_sink(const std::string& path, const std::string&,
                                                const VideoWriterOptions&) {
    no_ffmpeg(path);
}

}  // namespace sana
