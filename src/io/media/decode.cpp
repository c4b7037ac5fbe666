// Reading pictures and videos.
#include <algorithm>
#include <cstring>
#include <functional>

#include "io/image.h"
#include "io/media/av.h"
#include "io/text_file.h"
#include "io/video_sink.h"

namespace sana {

namespace {

constexpr int kLargestSide = 16384;

struct Decoder {
    av::Input input;
    av::Codec codec;
    int stream = -1;
};

av::Input open_input(const std::string& path) {
    av::silence();
    check_input(file_exists(path), path, ": no such file");
    check_input(!is_folder(path), path, ": is a folder, a file is expected");
    AVFormatContext* raw = nullptr;
    int code = avformat_open_input(&raw, ("file:" + path).c_str(), nullptr, nullptr);
    check_input(code >= 0, path, ": cannot be read as a picture or video: ", av::message(code));
    av::Input input(raw);
    code = avformat_find_stream_info(raw, nullptr);
    check_input(code >= 0, path, ": cannot be read as a picture or video: ", av::message(code));
    return input;
}

Decoder open_decoder(const std::string& path) {
    Decoder d;
    d.input = open_input(path);
    const AVCodec* codec = nullptr;
    d.stream = av_find_best_stream(d.input.get(), AVMEDIA_TYPE_VIDEO, -1, -1, &codec, 0);
    check_input(d.stream >= 0 && codec != nullptr, path, ": holds no picture or video that can be decoded");
    d.codec.reset(avcodec_alloc_context3(codec));
    const AVCodecParameters* parameters = d.input->streams[d.stream]->codecpar;
    check_input(parameters->width > 0 && parameters->height > 0 && parameters->width <= kLargestSide &&
                    parameters->height <= kLargestSide,
                path, ": is ", int64_t{parameters->width}, " x ", int64_t{parameters->height},
                " pixels; 1 .. ", int64_t{kLargestSide}, " a side");
    int code = avcodec_parameters_to_context(d.codec.get(), parameters);
    if (code >= 0) code = avcodec_open2(d.codec.get(), codec, nullptr);
    check_input(code >= 0, path, ": cannot be decoded: ", av::message(code));
    return d;
}

// RGBA on the way, so that transparency can be laid over black.
Tensor to_rgb(const AVFrame& frame, const std::string& path) {
    check_input(
        frame.width > 0 && frame.height > 0 && frame.width <= kLargestSide && frame.height <= kLargestSide,
        path, ": has a frame of ", int64_t{frame.width}, " x ", int64_t{frame.height}, " pixels");
    av::Scaler scaler(sws_getContext(
        frame.width, frame.height, static_cast<AVPixelFormat>(frame.format), frame.width, frame.height,
        AV_PIX_FMT_RGBA, SWS_BILINEAR | SWS_FULL_CHR_H_INT | SWS_ACCURATE_RND, nullptr, nullptr, nullptr));
    check_input(scaler != nullptr, path, ": its pixel format cannot be converted to RGB");
    // Untagged video is BT.601 by custom of the format's decoders, unless it is high definition.
    int space = frame.colorspace == AVCOL_SPC_BT709 ||
                        (frame.colorspace == AVCOL_SPC_UNSPECIFIED && frame.height >= 720)
                    ? SWS_CS_ITU709
                    : SWS_CS_ITU601;
    bool full_range = frame.color_range == AVCOL_RANGE_JPEG;
    sws_setColorspaceDetails(scaler.get(), sws_getCoefficients(space), full_range,
                             sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, 1 << 16, 1 << 16);
    Tensor rgba = empty({frame.height, frame.width, 4}, DType::U8),
           out = empty({frame.height, frame.width, 3}, DType::U8);
    uint8_t* planes[4] = {rgba.data<uint8_t>(), nullptr, nullptr, nullptr};
    int strides[4] = {4 * frame.width, 0, 0, 0};
    sws_scale(scaler.get(), frame.data, frame.linesize, 0, frame.height, planes, strides);
    for (int64_t i = 0; i < rgba.numel() / 4; ++i) {
        const uint8_t* in = rgba.data<uint8_t>() + 4 * i;
        for (int64_t c = 0; c < 3; ++c)
            out.data<uint8_t>()[3 * i + c] = static_cast<uint8_t>((in[c] * in[3] + 127) / 255);
    }
    return out;
}

// Decodes until take() returns false or the stream ends.
void decode_frames(Decoder& d, const std::string& path, const std::function<bool(const AVFrame&)>& take) {
    av::Packet packet(av_packet_alloc());
    av::Frame frame(av_frame_alloc());
    bool draining = false;
    int damaged = 0;
    while (true) {
        int code = avcodec_receive_frame(d.codec.get(), frame.get());
        if (code >= 0) {
            bool more = take(*frame);
            av_frame_unref(frame.get());
            if (!more) return;
            continue;
        }
        if (code == AVERROR_EOF) return;
        if (code != AVERROR(EAGAIN) && ++damaged > 100) fail_input(path, ": is damaged: ", av::message(code));
        if (draining) return;
        code = av_read_frame(d.input.get(), packet.get());
        if (code < 0) {
            draining = true;
            avcodec_send_packet(d.codec.get(), nullptr);
            continue;
        }
        if (packet->stream_index == d.stream) {
            code = avcodec_send_packet(d.codec.get(), packet.get());
            if (code < 0 && code != AVERROR(EAGAIN) && ++damaged > 100)
                fail_input(path, ": is damaged: ", av::message(code));
        }
        av_packet_unref(packet.get());
    }
}

}  // namespace

Tensor read_image(const std::string& path) {
    Decoder d = open_decoder(path);
    Tensor image;
    decode_frames(d, path, [&](const AVFrame& frame) {
        image = to_rgb(frame, path);
        return false;
    });
    check_input(image.defined(), path, ": holds no complete picture; the file is damaged or cut short");
    return image;
}

VideoFrames read_video(const std::string& path, int64_t max_frames) {
    Decoder d = open_decoder(path);
    std::vector<Tensor> frames;
    decode_frames(d, path, [&](const AVFrame& frame) {
        frames.push_back(to_rgb(frame, path));
        check_input(frames.back().shape() == frames.front().shape(), path, ": changes its size at frame ",
                    frames.size() - 1);
        return static_cast<int64_t>(frames.size()) < max_frames;
    });
    check_input(!frames.empty(), path, ": holds no complete frame; the file is damaged or cut short");
    VideoFrames out;
    int64_t each = frames[0].numel();
    out.frames =
        empty({static_cast<int64_t>(frames.size()), frames[0].dim(0), frames[0].dim(1), 3}, DType::U8);
    for (size_t i = 0; i < frames.size(); ++i) {
        std::memcpy(out.frames.data<uint8_t>() + static_cast<int64_t>(i) * each, frames[i].raw(),
                    static_cast<size_t>(each));
    }
    AVRational rate = av_guess_frame_rate(d.input.get(), d.input->streams[d.stream], nullptr);
    out.fps = rate.den != 0 ? av_q2d(rate) : 0;
    return out;
}

void read_frames(const std::string& path, const std::function<bool(const Tensor&, double)>& take) {
    Decoder d = open_decoder(path);
    const AVStream* stream = d.input->streams[d.stream];
    AVRational rate = av_guess_frame_rate(d.input.get(), d.input->streams[d.stream], nullptr);
    double step = rate.num > 0 && rate.den > 0 ? av_q2d(av_inv_q(rate)) : 0, first = 0, last = -step;
    int64_t count = 0;
    Shape shape;
    decode_frames(d, path, [&](const AVFrame& frame) {
        Tensor rgb = to_rgb(frame, path);
        bool timed = frame.best_effort_timestamp != AV_NOPTS_VALUE;
        double time =
            timed ? static_cast<double>(frame.best_effort_timestamp) * av_q2d(stream->time_base) - first
                  : last + step;
        if (count == 0) {
            if (timed) first = time;
            time = 0;
            shape = rgb.shape();
        }
        check_input(rgb.shape() == shape, path, ": changes its size at frame ", count);
        ++count;
        last = time;
        return take(rgb, time);
    });
    check_input(count > 0, path, ": holds no complete frame; the file is damaged or cut short");
}

std::optional<std::string> read_comment(const std::string& path) {
    av::Input input = open_input(path);
    const AVDictionaryEntry* entry = av_dict_get(input->metadata, "comment", nullptr, 0);
    return entry == nullptr ? std::nullopt : std::optional<std::string>(entry->value);
}

}  // namespace sana
