// Reading and writing safetensors files: https://github.com/huggingface/safetensors (README, "Format").
//   8 bytes      length n of the header, little-endian
//   n bytes      JSON {"__metadata__": {text: text}, name: {"dtype", "shape", "data_offsets": [begin, end]}, ...}
//   the rest     the tensors' bytes, row-major; offsets count from here and cover it without gap or overlap
#pragma once

#include <map>
#include <string>

#include "io/checkpoint.h"

namespace sana {

using Metadata = std::map<std::string, std::string>;

// Reads one file. Every statement of the header is checked against the file before a tensor is made of it; whatever
// does not agree is an InputError naming file, tensor and numbers. Data that is not aligned to its element size is copied.
Checkpoint read_safetensors(const std::string& path);

// Writes one file, atomically. Tensors are ordered by falling element size (which keeps all of them aligned), then by
// name, so equal content gives equal bytes. "format": "pt" is added to the metadata when it has no "format".
void write_safetensors(const std::string& path, const TensorMap& tensors, const Metadata& metadata = {});

// Writes <base>.safetensors when the data has at most max_bytes, else shards of at most max_bytes (more only where a
// single tensor has more) <base>-00001-of-0000n.safetensors and <base>.safetensors.index.json. Makes the folder. Files
// of an earlier checkpoint of the same base that the new one does not use are removed at the end.
void write_sharded(const std::string& folder, const std::string& base, const TensorMap& tensors,
                   int64_t max_bytes, const Metadata& metadata = {});

// Reads the checkpoint <base> of a folder: <base>.safetensors, else the shards of <base>.safetensors.index.json, else a
// variant (<base>.bf16.safetensors, its shards; bf16 before fp16 before fp32, any other only when it is the only one).
// Metadata of shards is merged, the first shard wins. A missing shard or tensor is an InputError that names it.
Checkpoint read_folder(const std::string& folder, const std::string& base);

// Reads the shards that an index file (*.index.json) lists.
Checkpoint read_shard_index(const std::string& index_path);

}  // namespace sana
