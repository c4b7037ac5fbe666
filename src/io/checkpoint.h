// A checkpoint in memory, whatever file it came from, and the reader that picks the right one by content.
#pragma once

#include <map>
#include <string>

#include "core/tensor.h"

namespace sana {

// Tensors keep the dtype they are stored in. Where the file allows it they are views into a private mapping of the
// file: nothing is read before it is used, an op may write into them, and the file never changes. Their data is aligned
// to the size of an element, no more.
struct Checkpoint {
    TensorMap tensors;                            // each named with its key
    std::map<std::string, std::string> metadata;  // what the file says about itself
    std::map<std::string, std::string> files;     // tensor name -> path of the file it came from
};

// Reads a .safetensors file, a .pth file (zip), a shard index (*.index.json) or a folder in the diffusers or
// transformers layout (diffusion_pytorch_model, model). The content decides, not the name; an InputError says what
// the file is instead when it is none of these.
Checkpoint read_checkpoint(const std::string& path);

}  // namespace sana
