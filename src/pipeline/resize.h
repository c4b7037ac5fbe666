// Pictures and frames brought to a size.
#pragma once

#include <string>
#include <string_view>

#include "core/tensor.h"
#include "pipeline/resolution.h"

namespace sana {

// Lanczos (a = 3, antialiased) as Pillow resizes 8-bit pictures: two passes, horizontal first, coefficients in fixed
// point with 22 - 8 bits, each pass rounded to 8 bits.   [H,W,3] uint8 -> [h,w,3] uint8
Tensor resize_lanczos(const Tensor& image, Size size);

// How a picture of another shape is brought to the size of the video.
enum class Fit { crop, pad, stretch };
Fit parse_fit(std::string_view name);

// crop: scaled to cover, centre kept; pad: scaled to fit, black bars; stretch: both sides scaled.   [H,W,3] uint8
Tensor fit_image(const Tensor& image, Size size, Fit fit);

// Bilinear with half-pixel centres, no antialiasing, then a centre crop to exactly `size`: what the reference does with
// frames that were made at a bin's size. frames [T,H,W,3] fp32 -> [T,h,w,3]
Tensor resize_and_crop(const Tensor& frames, Size size);

}  // namespace sana
