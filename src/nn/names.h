// Checkpoint keys: how a file format calls our parameters, and loading and saving by such a table.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "nn/module.h"

namespace sana {

// Our name (or a prefix of it that ends at a dot) and the key in the file. A * stands for one path segment, the same on
// both sides. Keys separated by | are concatenated along the first dimension in equal parts.
//     {"blocks.*.qkv", "transformer_blocks.*.attn1.to_q|transformer_blocks.*.attn1.to_k|transformer_blocks.*.attn1.to_v"}
// The first rule that matches wins; without a rule the key is our name.
struct NameRule {
    std::string ours, theirs;
};

struct CheckpointNames {
    std::string_view format;  // "diffusers", "official"
    std::vector<NameRule> rules;
    std::vector<std::string_view> ignored;  // globs of keys that a file may have and we do not need
    std::string prefix;                     // put before every key ("model.")
};

// The keys that hold a parameter, in order of concatenation.
std::vector<std::string> checkpoint_keys(const CheckpointNames& names, const std::string& ours);

// Key and shape of every tensor that a file of this format holds for these parameters, sorted by key.
std::vector<std::pair<std::string, Shape>> checkpoint_layout(const std::vector<NamedParameter>& parameters,
                                                             const CheckpointNames& names);

// What a file lacks or has too much of against a model.
struct Mismatch {
    std::vector<std::string> missing;    // "key [shape] (nearest in the file: ...)"
    std::vector<std::string> surplus;    // "key [shape]"
    std::vector<std::string> misshapen;  // "key is [..] in the file, the config asks for [..]"
    bool none() const { return missing.empty() && surplus.empty() && misshapen.empty(); }
};
Mismatch compare(const std::vector<NamedParameter>& parameters, const CheckpointNames& names,
                 const TensorMap& tensors);

// Fills every parameter from the tensors of a file, converted to dtype (nullopt: as stored) and then sent to the device,
// one at a time, so that no second copy of a model stands in the host's memory. On the CPU a tensor that needs neither
// conversion nor another layout stays a view of the file's mapping. Throws InputError that lists all mismatches at once.
// source: the file or folder, for messages. loaded: called with each parameter in turn, so that it can be put into another form
// before the next one takes memory.
void load(const std::vector<NamedParameter>& parameters, const CheckpointNames& names,
          const TensorMap& tensors, std::optional<DType> dtype, const std::string& source,
          Device device = kCpu, const std::function<void(const NamedParameter&)>& loaded = {});

// The parameters as a file of this format holds them, in the host's memory.
TensorMap save(const std::vector<NamedParameter>& parameters, const CheckpointNames& names);

}  // namespace sana
