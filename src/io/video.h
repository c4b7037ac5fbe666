// Video files. Frames are [T,H,W,3] uint8, RGB.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/tensor.h"

namespace sana {

// The format follows the extension, or `format` when it is given:
//   mp4   H.264, yuv420p, BT.709, index in front        webm  VP9
//   gif   256 colours, dithered                         webp  animated
//   png   a folder of 00000.png ...                     y4m   uncompressed 4:4:4
struct VideoWriterOptions {
    std::string format;
    double fps = 16;
    int quality = 18;    // CRF: 0 best .. 51 worst (mp4), scaled for webm; webp takes 100 - 2 * quality
    std::string recipe;  // JSON text kept with the file; empty: none
};

// Frames are encoded as they come. The file appears under its name at finish(); without it nothing is left behind.
// Errors (no encoder, no space, no permission) are InputErrors that name the file.
class VideoWriter {
public:
    VideoWriter(const std::string& path, const VideoWriterOptions& options);
    ~VideoWriter();
    void append(const Tensor& frames);
    void finish();

    class Sink;  // one format

private:
    std::unique_ptr<Sink> sink_;
};

// The format that a path and an option stand for; InputError when it is none.
std::string video_format(const std::string& path, const std::string& format);

struct VideoFrames {
    Tensor frames;  // [T,H,W,3]
    double fps = 0;
};

// Any video that FFmpeg decodes, at most max_frames from its start. Frames as they are stored: a variable rate is not
// evened out. InputError for a file that is empty, damaged or no video.
VideoFrames read_video(const std::string& path, int64_t max_frames);

// The frames of any video or picture one after the other, [H,W,3], with their times in seconds from the first one, until
// take returns false or the file ends. Errors as read_video().
void read_frames(const std::string& path,
                 const std::function<bool(const Tensor& frame, double seconds)>& take);

// The recipe kept with a video made by this program: in the file, in its folder, or in a .json beside it.
std::optional<std::string> read_recipe(const std::string& path);

}  // namespace sana
