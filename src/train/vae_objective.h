// Training of a Wan-type video autoencoder: reconstruction and divergence, on pictures and clips.
#pragma once

#include "models/wan_vae/wan_vae.h"
#include "train/objective.h"

namespace sana {

struct VaeOptions {
    double squared = 0;    // weight of the mean squared error beside the mean absolute one (weight 1)
    double scales = 0.5;   // of the absolute error at half and quarter size: colours and flat areas
    double edges = 0.5;    // of the absolute error of differences between neighbouring pixels
    double motion = 0.25;  // of the absolute error of differences between neighbouring frames
    double kl = 1e-6;  // of the divergence a latent element, summed over a sample's latents over its pixels
    // Encoder, latents and their mean and deviation stay as they are, and with them every transformer that was trained on
    // them; there is no divergence then.
    bool decoder_only = false;
};

// [B,T,H,W,3] in -1..1 from a batch's videos (uint8): into a tensor of the host's memory, or as a new one on a device.
void write_videos(const Batch& batch, Tensor out);
Tensor video_tensor(const Batch& batch, DType dtype, Device device);

// A whole clip through one half at once, recorded by the tape of the thread: what encode() and decode() give in chunks. Not
// clamped, so that gradients pass everywhere.
VaeMoments encode_recorded(const WanVae& vae, const Tensor& video);
Tensor decode_recorded(const WanVae& vae, const Tensor& latents);

// Of weights that were just drawn (fp32): a narrow posterior, deviation e^-3 everywhere. With that of random weights, near 1,
// a decoder first learns to ignore its input.
void begin_narrow(WanVae& vae);

// For decoder_only: what is not trained in the dtype that the rest computes with.
void freeze_encoder(WanVae& vae, DType compute);

class VaeObjective : public Objective {
public:
    VaeObjective(WanVae& vae, const VaeOptions& options) : vae_(vae), options_(options) {}

    std::string stage() const override { return "vae"; }
    std::vector<NamedParameter> parameters() override;
    std::vector<Tensor> prepare(const Batch& batch, const Draws& draws) override;  // the video
    // [video, noise of the posterior]
    std::vector<Tensor> inputs(const Batch& batch, const std::vector<Tensor>& prepared,
                               const Draws& draws) override;
    Losses losses_of(const std::vector<Tensor>& inputs) override;
    // Beside the loss "held_out_psnr" in dB, the mean over clips: 10 log10(4 / mean squared error) of the posterior's mean,
    // decoded and clamped to -1..1.
    std::map<std::string, double> judge(const std::vector<Tensor>& inputs) override;
    void write_model(const std::string& folder, const std::function<Tensor(size_t)>& value) override;

    // Mean and deviation of every latent channel over some batches, as config.json keeps them; measured with the weights
    // in the model, and written by the next write_model(). Not for decoder_only.
    void measure_latents(const std::vector<Batch>& batches);

private:
    VaeMoments moments_of(const Tensor& video) const;

    WanVae& vae_;
    VaeOptions options_;
    Staging staging_;
    std::vector<double> mean_, deviation_;
};

}  // namespace sana
