#include "train/vae_objective.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/parallel.h"
#include "core/scope.h"
#include "io/safetensors.h"
#include "io/text_file.h"
#include "ops/loss.h"
#include "ops/pointwise.h"
#include "ops/tape.h"

namespace sana {

namespace {

enum : uint64_t { kPosterior = 1 };

constexpr int64_t kShard = int64_t{16} << 20;

// x[i + 1] - x[i] along an axis.
Tensor differences(const Tensor& x, int axis) {
    int64_t n = x.dim(axis) - 1;
    return combine({{1, slice(x, axis, 1, n)}, {-1, slice(x, axis, 0, n)}});
}

bool decodes(const NamedParameter& parameter) {
    return parameter.name.starts_with("decoder.") || parameter.name.starts_with("post_quant_conv.");
}

}  // namespace

void write_videos(const Batch& batch, Tensor out) {
    int64_t count = static_cast<int64_t>(batch.videos.size());
    const Bucket& k = batch.bucket;
    Shape clip{k.frames, k.height, k.width, 3};
    check(out.device() == kCpu && out.dense() && out.numel() == count * clip.numel(), "videos of ", clip,
          " for ", out);
    dispatch_float(out.dtype(), [&]<class T>() {
        T values[256];  // of every byte
        for (int i = 0; i < 256; ++i) values[i] = T(static_cast<float>(i) / 127.5f - 1);
        int64_t frame = k.height * k.width * 3;
        for (const Tensor& video : batch.videos) {
            check(video.dtype() == DType::U8 && video.shape() == clip && video.dense(), "a video ", video,
                  " in a batch of ", clip);
        }
        parallel_for(count * k.frames, frame, [&](int64_t task) {
            const Tensor& video = batch.videos[static_cast<size_t>(task / k.frames)];
            const uint8_t* from = video.data<uint8_t>() + task % k.frames * frame;
            T* to = out.data<T>() + task * frame;
            for (int64_t i = 0; i < frame; ++i) to[i] = values[from[i]];
        });
    });
}

Tensor video_tensor(const Batch& batch, DType dtype, Device device) {
    const Bucket& k = batch.bucket;
    Tensor out = empty({static_cast<int64_t>(batch.videos.size()), k.frames, k.height, k.width, 3}, dtype);
    write_videos(batch, out);
    return out.to(device);
}

VaeMoments encode_recorded(const WanVae& vae, const Tensor& video) {
    Scope scope("vae");
    CausalCache cache;
    cache.whole = true;
    Tensor moments = vae.quant_conv->forward(vae.encoder->forward(video, cache));
    int64_t z = vae.config().latent_channels;
    // A dense copy that the tape sees.
    return {combine({{1, moments.cols_slice(0, z)}}), clamp(moments.cols_slice(z, z), -30, 20)};
}

Tensor decode_recorded(const WanVae& vae, const Tensor& latents) {
    Scope scope("vae");
    CausalCache cache;
    cache.whole = true;
    return vae.decoder->forward(vae.post_quant_conv->forward(latents), cache);
}

void begin_narrow(WanVae& vae) {
    check(vae.quant_conv.has_value(), "an autoencoder without its encoder has no posterior");
    auto set_second_half = [](Tensor& parameter, double value) {  // mean and log variance, in this order
        Tensor host = parameter.to(kCpu).clone();
        float* p = host.data<float>();
        std::fill(p + host.numel() / 2, p + host.numel(), static_cast<float>(value));
        copy(host, parameter);
    };
    set_second_half(vae.quant_conv->weight.value, 0);
    set_second_half(vae.quant_conv->bias.value, -6);
}

void freeze_encoder(WanVae& vae, DType compute) {
    for (const NamedParameter& p : parameters(vae))
        if (!decodes(p)) p.parameter->value = p.parameter->value.to(compute);
}

std::vector<NamedParameter> VaeObjective::parameters() {
    std::vector<NamedParameter> out = sana::parameters(vae_);
    if (options_.decoder_only) std::erase_if(out, [](const NamedParameter& p) { return !decodes(p); });
    for (NamedParameter& p : out) p.name = "vae." + p.name;
    return out;
}

std::vector<Tensor> VaeObjective::prepare(const Batch& batch, const Draws&) {
    const Bucket& k = batch.bucket;
    check_input(vae_.encoder && vae_.decoder && valid_frames(k.frames, vae_.config().temporal_factor()),
                "a clip of ", k.frames, " frames cannot be encoded; 1 + ", vae_.config().temporal_factor(),
                "k frames are expected");
    Tensor video = staging_.take({static_cast<int64_t>(batch.videos.size()), k.frames, k.height, k.width, 3},
                                 vae_.dtype(), vae_.device());
    write_videos(batch, video);
    return {video};
}

std::vector<Tensor> VaeObjective::inputs(const Batch&, const std::vector<Tensor>& prepared,
                                         const Draws& draws) {
    Tensor video = prepared[0].to(vae_.device());
    const WanVaeConfig& c = vae_.config();
    int64_t s = c.spatial_factor();
    Shape latents{video.dim(0), 1 + (video.dim(1) - 1) / c.temporal_factor(), video.dim(2) / s,
                  video.dim(3) / s, c.latent_channels};
    return {video, draws.normal(latents, kPosterior, video.device()).to(video.dtype())};
}

VaeMoments VaeObjective::moments_of(const Tensor& video) const {
    std::optional<NoTape> frozen;
    if (options_.decoder_only) frozen.emplace();
    return encode_recorded(vae_, video);
}

Losses VaeObjective::losses_of(const std::vector<Tensor>& inputs) {
    const Tensor &video = inputs[0], &noise = inputs[1];
    VaeMoments moments = moments_of(video);
    Tensor y = decode_recorded(vae_, gaussian_sample(moments.mean, moments.logvar, noise));

    Losses out;
    out.parts["absolute"] = difference_loss(y, video, LossKind::absolute);
    out.total = out.parts["absolute"];
    auto include = [&](const std::string& name, double weight, const Tensor& loss) {
        if (out.parts.count(name) == 0) {
            out.parts[name] = loss;
        } else {
            out.parts[name] = combine({{1, out.parts[name]}, {1, loss}});
        }
        out.total = combine({{1, out.total}, {weight, loss}});
    };
    auto absolute = [](const Tensor& a, const Tensor& b) {
        return difference_loss(a, b, LossKind::absolute);
    };
    if (options_.squared > 0)
        include("squared", options_.squared, difference_loss(y, video, LossKind::squared));
    if (options_.scales > 0) {
        Tensor small = y, goal = video;
        for (int level = 0; level < 2 && small.dim(2) % 2 == 0 && small.dim(3) % 2 == 0; ++level) {
            small = mean_pixels(small);
            goal = mean_pixels(goal);
            include("scales", options_.scales, absolute(small, goal));
        }
    }
    if (options_.edges > 0) {
        for (int axis : {2, 3})
            include("edges", options_.edges, absolute(differences(y, axis), differences(video, axis)));
    }
    if (options_.motion > 0 && video.dim(1) > 1)
        include("motion", options_.motion, absolute(differences(y, 1), differences(video, 1)));
    if (options_.decoder_only) return out;
    Tensor kl = kl_loss(moments.mean, moments.logvar, 1 / static_cast<double>(moments.mean.numel()));
    double elements = static_cast<double>(moments.mean.numel()) / static_cast<double>(video.numel());
    include("kl", options_.kl * elements, kl);
    return out;
}

std::map<std::string, double> VaeObjective::judge(const std::vector<Tensor>& inputs) {
    std::map<std::string, double> out = Objective::judge(inputs);
    const Tensor& video = inputs[0];
    Tensor y = clamp(decode_recorded(vae_, encode_recorded(vae_, video).mean), -1, 1);
    double sum = 0;
    for (int64_t b = 0; b < y.dim(0); ++b) {
        double error = item(difference_loss(y.outer_slice(b, 1), video.outer_slice(b, 1), LossKind::squared));
        sum += 10 * std::log10(4 / std::max(error, 1e-12));
    }
    out["held_out_psnr"] = sum / static_cast<double>(y.dim(0));
    return out;
}

void VaeObjective::measure_latents(const std::vector<Batch>& batches) {
    check(!options_.decoder_only, "latents of an encoder that stays as it is keep their mean and deviation");
    NoTape pause;
    size_t z = static_cast<size_t>(vae_.config().latent_channels);
    std::vector<double> sum(z, 0.0), squares(z, 0.0);
    double count = 0;
    for (const Batch& batch : batches) {
        Tensor mean = encode_recorded(vae_, video_tensor(batch, vae_.dtype(), vae_.device())).mean;
        std::vector<double> values = to_vector<double>(mean.to(kCpu));
        for (size_t i = 0; i < values.size(); ++i) {
            sum[i % z] += values[i];
            squares[i % z] += values[i] * values[i];
        }
        count += static_cast<double>(values.size() / z);
    }
    mean_.assign(z, 0);
    deviation_.assign(z, 1);
    for (size_t i = 0; i < z; ++i) {
        mean_[i] = sum[i] / count;
        deviation_[i] = std::sqrt(std::max(1e-12, squares[i] / count - mean_[i] * mean_[i]));
    }
}

void VaeObjective::write_model(const std::string& folder, const std::function<Tensor(size_t)>& value) {
    std::vector<NamedParameter> all = sana::parameters(vae_), list = parameters();
    std::vector<Tensor> kept;
    for (const NamedParameter& p : all) kept.push_back(p.parameter->value);
    for (size_t i = 0; i < list.size(); ++i) list[i].parameter->value = value(i);
    for (const NamedParameter& p : all) p.parameter->value = p.parameter->value.to(DType::BF16);
    make_folders(folder + "/vae");
    write_sharded(folder + "/vae", "diffusion_pytorch_model",
                  save(sana::parameters(vae_), wan_vae_names(VaeParts::both)), kShard);
    WanVaeConfig config = vae_.config();
    if (!mean_.empty()) {
        config.latents_mean = mean_;
        config.latents_std = deviation_;
    }
    write_text_file(folder + "/vae/config.json", config.to_json());
    for (size_t i = 0; i < all.size(); ++i) all[i].parameter->value = kept[i];
}

}  // namespace sana
