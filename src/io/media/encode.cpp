// Writing videos and pictures.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "io/atomic_file.h"
#include "io/image.h"
#include "io/media/av.h"
#include "io/text_file.h"
#include "io/video_sink.h"

namespace sana {

namespace {

struct Recipe {
    const char* format;  // muxer
    const char* encoder;
    AVPixelFormat pixels;
    bool even;      // needs even sides
    bool metadata;  // keeps the recipe in the file
};

Recipe recipe_of(const std::string& format) {
    if (format == "mp4") return {"mp4", "libx264", AV_PIX_FMT_YUV420P, true, true};
    if (format == "webm") return {"webm", "libvpx-vp9", AV_PIX_FMT_YUV420P, true, true};
    if (format == "gif") return {"gif", "gif", AV_PIX_FMT_BGR8, false, false};
    return {"webp", "libwebp_anim", AV_PIX_FMT_YUV420P, true, false};
}

// Sides made even by repeating the last column and row.
Tensor padded(const Tensor& frame, int64_t height, int64_t width) {
    if (frame.dim(0) == height && frame.dim(1) == width) return frame;
    Tensor out = empty({height, width, 3}, DType::U8);
    for (int64_t h = 0; h < height; ++h) {
        for (int64_t w = 0; w < width; ++w) {
            const uint8_t* in =
                frame.data<uint8_t>() +
                (std::min(h, frame.dim(0) - 1) * frame.dim(1) + std::min(w, frame.dim(1) - 1)) * 3;
            std::memcpy(out.data<uint8_t>() + (h * width + w) * 3, in, 3);
        }
    }
    return out;
}

// BT.709, limited range, 4:2:0 with chroma sited on the left as H.264 and VP9 assume: weights 1 2 1 over three columns and
// the mean of two rows. Our own, because the same frames must give the same bytes in every run.
void to_yuv420(const Tensor& rgb, AVFrame& frame) {
    constexpr double kRed = 0.2126, kBlue = 0.0722, kGreen = 1 - kRed - kBlue;
    int64_t height = rgb.dim(0), width = rgb.dim(1);
    const uint8_t* in = rgb.data<uint8_t>();
    auto rounded = [](double v) { return static_cast<uint8_t>(std::clamp(v + 0.5, 0.0, 255.0)); };
    for (int64_t h = 0; h < height; ++h) {
        for (int64_t w = 0; w < width; ++w) {
            const uint8_t* p = in + (h * width + w) * 3;
            double y = kRed * p[0] + kGreen * p[1] + kBlue * p[2];
            frame.data[0][h * frame.linesize[0] + w] = rounded(16 + y * 219 / 255);
        }
    }
    for (int64_t h = 0; h < height; h += 2) {
        for (int64_t w = 0; w < width; w += 2) {
            double sums[3] = {};
            for (int64_t row = 0; row < 2; ++row) {
                for (int64_t column = -1; column <= 1; ++column) {
                    const uint8_t* p =
                        in + ((h + row) * width + std::clamp<int64_t>(w + column, 0, width - 1)) * 3;
                    for (int c = 0; c < 3; ++c) sums[c] += (column == 0 ? 2.0 : 1.0) / 8 * p[c];
                }
            }
            double y = kRed * sums[0] + kGreen * sums[1] + kBlue * sums[2];
            frame.data[1][h / 2 * frame.linesize[1] + w / 2] =
                rounded(128 + (sums[2] - y) / (2 * (1 - kBlue)) * 224 / 255);
            frame.data[2][h / 2 * frame.linesize[2] + w / 2] =
                rounded(128 + (sums[0] - y) / (2 * (1 - kRed)) * 224 / 255);
        }
    }
}

class EncodedSink : public VideoWriter::Sink {
public:
    EncodedSink(const std::string& path, const std::string& format, const VideoWriterOptions& options)
        : path_(path),
          temporary_(join(path, ".part", getpid())),
          recipe_(recipe_of(format)),
          options_(options) {
        av::silence();
        encoder_ = avcodec_find_encoder_by_name(recipe_.encoder);
        check_input(encoder_ != nullptr, path_, ": the FFmpeg of this machine has no encoder ",
                    recipe_.encoder, "; write a .y4m file or a folder of PNG frames instead");
        FILE* probe = std::fopen(temporary_.c_str(), "wb");
        check_input(probe != nullptr, path_, ": cannot be written: ", std::strerror(errno));
        std::fclose(probe);
    }

    ~EncodedSink() override {
        output_.reset();
        unlink(temporary_.c_str());
    }

    void append(const Tensor& frames) override {
        for (int64_t t = 0; t < frames.dim(0); ++t) {
            Tensor frame = frames.select(t);
            if (output_ == nullptr) open(frame.dim(0), frame.dim(1));
            encode(padded(frame, codec_->height, codec_->width));
        }
    }

    void finish() override {
        check(output_ != nullptr, path_, ": a video without frames");
        send(nullptr);
        checked(av_write_trailer(output_.get()), "cannot be finished");
        int64_t lost = output_->pb->error;
        checked(static_cast<int>(lost), "cannot be finished");
        output_.reset();
        check_input(rename(temporary_.c_str(), path_.c_str()) == 0, path_,
                    ": cannot be written: ", std::strerror(errno));
        if (!recipe_.metadata && !options_.recipe.empty()) write_text_file(path_ + ".json", options_.recipe);
    }

private:
    void checked(int code, const char* what) {
        if (code >= 0) return;
        bool full = code == AVERROR(ENOSPC) || code == AVERROR(EFBIG);
        throw InputError(join(path_, ": ", what, ": ", av::message(code),
                              full ? "; free some space or choose another place" : ""));
    }

    void open(int64_t height, int64_t width) {
        int64_t wide = recipe_.even ? (width + 1) / 2 * 2 : width,
                high = recipe_.even ? (height + 1) / 2 * 2 : height;
        AVFormatContext* raw = nullptr;
        checked(avformat_alloc_output_context2(&raw, nullptr, recipe_.format, ("file:" + temporary_).c_str()),
                "cannot be written");
        output_.reset(raw);
        AVStream* stream = avformat_new_stream(raw, nullptr);
        codec_.reset(avcodec_alloc_context3(encoder_));
        AVRational fps = av_d2q(options_.fps, 100000);
        codec_->width = static_cast<int>(wide);
        codec_->height = static_cast<int>(high);
        codec_->pix_fmt = recipe_.pixels;
        codec_->time_base = stream->time_base = av_inv_q(fps);
        codec_->framerate = stream->avg_frame_rate = fps;
        // A fixed number of threads: the same frames give the same file on every machine.
        codec_->thread_count = 4;
        codec_->flags |= AV_CODEC_FLAG_BITEXACT;
        raw->flags |= AVFMT_FLAG_BITEXACT;
        if (raw->oformat->flags & AVFMT_GLOBALHEADER) codec_->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
        if (recipe_.pixels == AV_PIX_FMT_YUV420P) {
            codec_->colorspace = AVCOL_SPC_BT709;
            codec_->color_primaries = AVCOL_PRI_BT709;
            codec_->color_trc = AVCOL_TRC_BT709;
            codec_->color_range = AVCOL_RANGE_MPEG;
        }
        AVDictionary* settings = nullptr;
        std::string name = recipe_.encoder;
        if (name == "libx264") {
            av_dict_set_int(&settings, "crf", options_.quality, 0);
            av_dict_set(&settings, "preset", "medium", 0);
            // x264's AVX-512 code (build 164) gives other bytes from run to run for the same frames; AVX2 does not.
            if (__builtin_cpu_supports("avx512f")) av_dict_set(&settings, "x264-params", "asm=AVX2", 0);
        } else if (name == "libvpx-vp9") {
            av_dict_set_int(&settings, "crf", std::min(63, options_.quality * 5 / 4 + 4), 0);
            av_dict_set(&settings, "b", "0", 0);
            av_dict_set(&settings, "deadline", "good", 0);
            av_dict_set(&settings, "cpu-used", "3", 0);
        } else if (name == "libwebp_anim") {
            av_dict_set_int(&settings, "quality", 100 - 2 * std::min(options_.quality, 50), 0);
        }
        int code = avcodec_open2(codec_.get(), encoder_, &settings);
        av_dict_free(&settings);
        checked(code, "the encoder cannot be opened");
        avcodec_parameters_from_context(stream->codecpar, codec_.get());
        if (recipe_.metadata && !options_.recipe.empty())
            av_dict_set(&raw->metadata, "comment", options_.recipe.c_str(), 0);
        checked(avio_open(&raw->pb, ("file:" + temporary_).c_str(), AVIO_FLAG_WRITE), "cannot be written");
        AVDictionary* muxing = nullptr;
        if (std::string(recipe_.format) == "mp4")
            av_dict_set(&muxing, "movflags", "faststart+use_metadata_tags", 0);
        if (std::string(recipe_.format) == "webp") av_dict_set(&muxing, "loop", "0", 0);
        code = avformat_write_header(raw, &muxing);
        av_dict_free(&muxing);
        checked(code, "cannot be written");
        if (recipe_.pixels == AV_PIX_FMT_BGR8) {
            scaler_.reset(sws_getContext(codec_->width, codec_->height, AV_PIX_FMT_RGB24, codec_->width,
                                         codec_->height, recipe_.pixels,
                                         SWS_BICUBIC | SWS_ACCURATE_RND | SWS_BITEXACT | SWS_ERROR_DIFFUSION,
                                         nullptr, nullptr, nullptr));
            check(scaler_ != nullptr, "no conversion from RGB to ", av_get_pix_fmt_name(recipe_.pixels));
        }
        frame_.reset(av_frame_alloc());
        frame_->format = recipe_.pixels;
        frame_->width = codec_->width;
        frame_->height = codec_->height;
        frame_->colorspace = codec_->colorspace;
        frame_->color_range = codec_->color_range;
        checked(av_frame_get_buffer(frame_.get(), 0), "no memory for a frame");
    }

    void encode(const Tensor& rgb) {
        checked(av_frame_make_writable(frame_.get()), "no memory for a frame");
        if (scaler_ == nullptr) {
            to_yuv420(rgb, *frame_);
        } else {
            const uint8_t* planes[4] = {rgb.data<uint8_t>(), nullptr, nullptr, nullptr};
            int strides[4] = {3 * codec_->width, 0, 0, 0};
            sws_scale(scaler_.get(), planes, strides, 0, codec_->height, frame_->data, frame_->linesize);
        }
        frame_->pts = next_++;
        send(frame_.get());
    }

    void send(const AVFrame* frame) {
        checked(avcodec_send_frame(codec_.get(), frame), "encoding failed");
        av::Packet packet(av_packet_alloc());
        while (true) {
            int code = avcodec_receive_packet(codec_.get(), packet.get());
            if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return;
            checked(code, "encoding failed");
            AVStream* stream = output_->streams[0];
            if (packet->duration == 0) packet->duration = 1;
            av_packet_rescale_ts(packet.get(), codec_->time_base, stream->time_base);
            packet->stream_index = 0;
            checked(av_interleaved_write_frame(output_.get(), packet.get()), "writing failed");
            checked(output_->pb->error, "writing failed");
        }
    }

    std::string path_, temporary_;
    Recipe recipe_;
    VideoWriterOptions options_;
    const AVCodec* encoder_ = nullptr;
    av::Output output_;
    av::Codec codec_;
    av::Scaler scaler_;
    av::Frame frame_;
    int64_t next_ = 0;
};

const AVCodec* png_encoder(const std::string& path) {
    const AVCodec* encoder = avcodec_find_encoder(AV_CODEC_ID_PNG);
    check_input(encoder != nullptr, path, ": the FFmpeg of this machine has no PNG encoder");
    return encoder;
}

}  // namespace

std::unique_ptr<VideoWriter::Sink> encoded_sink(const std::string& path, const std::string& format,
                                                const VideoWriterOptions& options) {
    return std::make_unique<EncodedSink>(path, format, options);
}

void check_png(const std::string& path) {
    png_encoder(path);
    AtomicFile trial(path);
}

void write_png(const std::string& path, const Tensor& image) {
    av::silence();
    check(image.rank() == 3 && image.dim(2) == 3 && image.dtype() == DType::U8, "picture ", image,
          " to a PNG");
    const AVCodec* encoder = png_encoder(path);
    av::Codec codec(avcodec_alloc_context3(encoder));
    codec->width = static_cast<int>(image.dim(1));
    codec->height = static_cast<int>(image.dim(0));
    codec->pix_fmt = AV_PIX_FMT_RGB24;
    codec->time_base = {1, 1};
    int code = avcodec_open2(codec.get(), encoder, nullptr);
    check(code >= 0, path, ": the PNG encoder cannot be opened: ", av::message(code));
    av::Frame frame(av_frame_alloc());
    frame->format = AV_PIX_FMT_RGB24;
    frame->width = codec->width;
    frame->height = codec->height;
    check(av_frame_get_buffer(frame.get(), 0) >= 0, "no memory for a frame");
    Tensor dense = image.contiguous();
    for (int64_t h = 0; h < dense.dim(0); ++h) {
        std::memcpy(frame->data[0] + h * frame->linesize[0], dense.data<uint8_t>() + h * dense.dim(1) * 3,
                    static_cast<size_t>(dense.dim(1) * 3));
    }
    av::Packet packet(av_packet_alloc());
    code = avcodec_send_frame(codec.get(), frame.get());
    if (code >= 0) code = avcodec_send_frame(codec.get(), nullptr);
    if (code >= 0) code = avcodec_receive_packet(codec.get(), packet.get());
    check(code >= 0, path, ": encoding failed: ", av::message(code));
    AtomicFile file(path);
    file.write(packet->data, packet->size);
    file.commit();
}

}  // namespace sana
