// Files of torch.save: a zip archive of a pickle (data.pkl) and one record of raw bytes a storage (data/<key>).
#pragma once

#include <map>
#include <string>

#include "io/checkpoint.h"

namespace sana {

// Reads the weights of a .pth, .pt, .ckpt or .bin file. The pickle is read by the restricted reader of io/pickle.h: no
// code of the file runs. Taken is the dictionary under "state_dict", else the file's own dictionary when tensors lie
// directly in it, else the one under "model", "ema" or "state_dict_ema", else all of it; names inside nested
// dictionaries are joined with '.'. Texts and numbers beside the weights become metadata. Dense tensors in
// uncompressed archives are views into the mapped file, others are copied. InputError for damaged and foreign files,
// with the reason; files of torch.save before PyTorch 1.6 have to be saved again.
Checkpoint read_pth(const std::string& path);

// Writes {"state_dict": {name: tensor}, key: text of the metadata, ...} such that torch.load(path, weights_only=True)
// reads it. Atomic; equal content gives equal bytes. The metadata must have no key "state_dict".
void write_pth(const std::string& path, const TensorMap& tensors,
               const std::map<std::string, std::string>& metadata = {});

}  // namespace sana
