// FFmpeg's objects as owning pointers, and its errors as ours.
#pragma once

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/imgutils.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
}

#include <memory>
#include <string>

#include "core/check.h"

namespace sana::av {

template <auto free_pointer>
struct FreeByAddress {
    template <class T>
    void operator()(T* p) const {
        free_pointer(&p);
    }
};
struct FreeScaler {
    void operator()(SwsContext* p) const { sws_freeContext(p); }
};
struct CloseOutput {
    void operator()(AVFormatContext* p) const {
        if (p->pb != nullptr) avio_closep(&p->pb);
        avformat_free_context(p);
    }
};

using Frame = std::unique_ptr<AVFrame, FreeByAddress<av_frame_free>>;
using Packet = std::unique_ptr<AVPacket, FreeByAddress<av_packet_free>>;
using Codec = std::unique_ptr<AVCodecContext, FreeByAddress<avcodec_free_context>>;
using Input = std::unique_ptr<AVFormatContext, FreeByAddress<avformat_close_input>>;
using Output = std::unique_ptr<AVFormatContext, CloseOutput>;
using Scaler = std::unique_ptr<SwsContext, FreeScaler>;

inline std::string message(int code) {
    char text[AV_ERROR_MAX_STRING_SIZE] = {};
    av_strerror(code, text, sizeof text);
    return text;
}

// FFmpeg writes to standard error by default; our messages carry what it says.
inline void silence() { av_log_set_level(AV_LOG_QUIET); }

}  // namespace sana::av
