// Small pictures of latents without the autoencoder: a linear map from latent channels to RGB, fitted by least squares.
#pragma once

#include "pipeline/vae.h"

namespace sana {

class LatentPreview {
public:
    // Fits the map on smooth random latents and what the autoencoder makes of their first frame.
    LatentPreview(const Vae& vae, const VaeShape& shape);

    // latents [1,t,h,w,Z], normalised, fp32 -> frames [t,h*scale,w*scale,3] uint8
    Tensor frames(const Tensor& latents, int64_t scale) const;

private:
    int64_t channels_;
    std::vector<double> map_;  // [Z+1,3], the last row the constant
};

}  // namespace sana
