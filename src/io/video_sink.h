// One output format of VideoWriter.
#pragma once

#include "io/video.h"

namespace sana {

class VideoWriter::Sink {
public:
    virtual ~Sink() = default;
    virtual void append(const Tensor& frames) = 0;
    virtual void finish() = 0;
};

// A format that FFmpeg encodes: mp4, webm, gif, webp.
std::unique_ptr<VideoWriter::Sink> encoded_sink(const std::string& path, const std::string& format,
                                                const VideoWriterOptions& options);

// The comment of a media file, where mp4 and webm keep the recipe.
std::optional<std::string> read_comment(const std::string& path);

}  // namespace sana
