// Pictures: [H,W,3] uint8, RGB.
#pragma once

#include <string>

#include "core/tensor.h"

namespace sana {

// PNG, JPEG, WebP, BMP, TIFF, GIF (first frame): what FFmpeg reads. Grey, palette and 16-bit pictures become 8-bit RGB,
// transparency is laid over black. At most 16384 pixels a side. InputError says what is wrong with a file.
Tensor read_image(const std::string& path);

void write_png(const std::string& path, const Tensor& image);
// InputError where a PNG cannot be written; nothing is changed.
void check_png(const std::string& path);

}  // namespace sana
