#include "nn/names.h"

#include <algorithm>
#include <set>

#include "ops/layout.h"

namespace sana {

namespace {

std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    for (size_t start = 0; start <= text.size();) {
        size_t end = std::min(text.find(separator, start), text.size());
        parts.push_back(text.substr(start, end - start));
        start = end + 1;
    }
    return parts;
}

// Whether a rule's left side is a prefix of the name; fills what its stars stand for and the rest of the name.
bool match_prefix(std::string_view pattern, std::string_view name, std::vector<std::string_view>& stars,
                  std::string_view& rest) {
    std::vector<std::string_view> want = split(pattern, '.'), have = split(name, '.');
    if (have.size() < want.size()) return false;
    stars.clear();
    size_t length = 0;
    for (size_t i = 0; i < want.size(); ++i) {
        if (want[i] == "*") {
            stars.push_back(have[i]);
        } else if (want[i] != have[i]) {
            return false;
        }
        length += have[i].size() + (i > 0 ? 1 : 0);
    }
    rest = name.substr(length);
    return true;
}

std::string substitute(std::string_view pattern, const std::vector<std::string_view>& stars) {
    std::string out;
    size_t next = 0;
    for (char c : pattern) {
        if (c == '*') {
            check(next < stars.size(), "name rule ", pattern, " has more stars on its right side");
            out += stars[next++];
        } else {
            out += c;
        }
    }
    return out;
}

int64_t edit_distance(std::string_view a, std::string_view b) {
    std::vector<int64_t> row(b.size() + 1);
    for (size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int64_t>(j);
    for (size_t i = 1; i <= a.size(); ++i) {
        int64_t diagonal = row[0];
        row[0] = static_cast<int64_t>(i);
        for (size_t j = 1; j <= b.size(); ++j) {
            int64_t substitution = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({substitution, row[j] + 1, row[j - 1] + 1});
        }
    }
    return row[b.size()];
}

bool ignored(const CheckpointNames& names, std::string_view key) {
    return std::any_of(names.ignored.begin(), names.ignored.end(), [&](std::string_view pattern) {
        std::string full = names.prefix + std::string(pattern);
        // A key that we do not need may stand with or without the prefix (lm_head beside model.*).
        std::vector<std::string_view> stars;
        std::string_view rest;
        return (match_prefix(full, key, stars, rest) || match_prefix(pattern, key, stars, rest));
    });
}

Shape part_shape(const Parameter& p, size_t parts) {
    Shape shape = p.stored;
    check(shape[0] % static_cast<int64_t>(parts) == 0, "a parameter of shape ", shape, " stored in ", parts,
          " parts");
    shape[0] /= static_cast<int64_t>(parts);
    return shape;
}

// The nearest surplus keys to a missing one, for a message. Bounded work: long lists are compared by prefix only.
std::string nearest(const std::string& key, const std::vector<std::string>& candidates) {
    const std::string* best = nullptr;
    int64_t best_distance = static_cast<int64_t>(key.size()) / 2;
    size_t looked = 0;
    for (const std::string& candidate : candidates) {
        if (++looked > 2000) break;
        int64_t distance = edit_distance(key, candidate);
        if (distance < best_distance) {
            best_distance = distance;
            best = &candidate;
        }
    }
    return best == nullptr ? std::string() : " (nearest in the file: " + *best + ")";
}

void append_list(std::string& out, std::string_view title, const std::vector<std::string>& lines) {
    constexpr size_t kMost = 40;
    if (lines.empty()) return;
    out += join("\n  ", lines.size(), ' ', title, ':');
    for (size_t i = 0; i < std::min(lines.size(), kMost); ++i) out += "\n    " + lines[i];
    if (lines.size() > kMost) out += join("\n    ... and ", lines.size() - kMost, " more");
}

}  // namespace

std::vector<std::string> checkpoint_keys(const CheckpointNames& names, const std::string& ours) {
    std::vector<std::string_view> stars;
    std::string_view rest;
    for (const NameRule& rule : names.rules) {
        if (!match_prefix(rule.ours, ours, stars, rest)) continue;
        std::vector<std::string> keys;
        for (std::string_view part : split(rule.theirs, '|')) {
            keys.push_back(names.prefix + substitute(part, stars) + std::string(rest));
        }
        return keys;
    }
    return {names.prefix + ours};
}

std::vector<std::pair<std::string, Shape>> checkpoint_layout(const std::vector<NamedParameter>& parameters,
                                                             const CheckpointNames& names) {
    std::vector<std::pair<std::string, Shape>> layout;
    for (const NamedParameter& p : parameters) {
        std::vector<std::string> keys = checkpoint_keys(names, p.name);
        for (const std::string& key : keys) layout.emplace_back(key, part_shape(*p.parameter, keys.size()));
    }
    std::sort(layout.begin(), layout.end(), [](auto& a, auto& b) { return a.first < b.first; });
    return layout;
}

Mismatch compare(const std::vector<NamedParameter>& parameters, const CheckpointNames& names,
                 const TensorMap& tensors) {
    Mismatch mismatch;
    std::set<std::string> wanted;
    std::vector<std::pair<std::string, Shape>> missing;
    for (const auto& [key, shape] : checkpoint_layout(parameters, names)) {
        wanted.insert(key);
        auto it = tensors.find(key);
        if (it == tensors.end()) {
            missing.emplace_back(key, shape);
        } else if (!(it->second.shape() == shape)) {
            mismatch.misshapen.push_back(
                join(key, " is ", it->second.shape(), " in the file, the config asks for ", shape));
        }
    }
    std::vector<std::string> surplus;
    for (const auto& [key, tensor] : tensors) {
        if (wanted.count(key) != 0 || ignored(names, key)) continue;
        surplus.push_back(key);
        mismatch.surplus.push_back(join(key, ' ', tensor.shape()));
    }
    for (const auto& [key, shape] : missing) {
        mismatch.missing.push_back(join(key, ' ', shape, nearest(key, surplus)));
    }
    return mismatch;
}

void load(const std::vector<NamedParameter>& parameters, const CheckpointNames& names,
          const TensorMap& tensors, std::optional<DType> dtype, const std::string& source, Device device,
          const std::function<void(const NamedParameter&)>& loaded) {
    Mismatch mismatch = compare(parameters, names, tensors);
    if (!mismatch.none()) {
        std::string message =
            join(source, ": the weights do not fit the config (names of the ", names.format, " format):");
        append_list(message, "missing", mismatch.missing);
        append_list(message, "of another shape", mismatch.misshapen);
        append_list(message, "not part of the model", mismatch.surplus);
        throw InputError(message);
    }
    for (const NamedParameter& named : parameters) {
        Parameter& p = *named.parameter;
        std::vector<Tensor> parts;
        for (const std::string& key : checkpoint_keys(names, named.name)) {
            const Tensor& stored = tensors.at(key);
            check_input(is_float(stored.dtype()) && stored.dtype() != DType::F8E4M3 &&
                            stored.dtype() != DType::F8E5M2,
                        source, ": ", key, " is ", stored.dtype(), "; weights are fp32, bf16, fp16 or fp64");
            // A device turns and converts faster than the host. fp64 is arithmetic of the CPU.
            parts.push_back(stored.dtype() == DType::F64 ? stored : stored.to(device));
        }
        for (const Tensor& part : parts) {
            check_input(part.dtype() == parts[0].dtype(), source, ": ", named.name,
                        " is stored in parts of dtypes ", part.dtype(), " and ", parts[0].dtype());
        }
        Tensor whole = parts.size() == 1 ? parts[0] : concat(parts, 0);
        if (!p.axes.empty()) whole = permute(whole, p.axes);
        DType wanted = p.keep_fp32 ? DType::F32 : dtype.value_or(whole.dtype());
        p.value = whole.contiguous().reshape(p.shape).to(wanted).to(device).named(named.name);
        if (loaded) loaded(named);
    }
}

TensorMap save(const std::vector<NamedParameter>& parameters, const CheckpointNames& names) {
    TensorMap tensors;
    for (const NamedParameter& named : parameters) {
        const Parameter& p = *named.parameter;
        check(p.value.defined(), "parameter ", named.name,
              p.codes.defined() ? " is held as fp8, whose codes are not saved" : " has no value to save");
        Tensor stored = p.value.to(kCpu);
        if (!p.axes.empty()) {
            // Undo value = permute(stored, axes): shape the value as the permuted tensor, then permute back.
            Shape permuted = p.stored;
            std::vector<int> inverse(p.axes.size());
            for (size_t i = 0; i < p.axes.size(); ++i) {
                permuted[static_cast<int>(i)] = p.stored[p.axes[i]];
                inverse[static_cast<size_t>(p.axes[i])] = static_cast<int>(i);
            }
            stored = permute(stored.reshape(permuted), inverse);
        }
        stored = stored.reshape(p.stored);
        std::vector<std::string> keys = checkpoint_keys(names, named.name);
        int64_t rows = part_shape(p, keys.size())[0];
        for (size_t i = 0; i < keys.size(); ++i) {
            tensors[keys[i]] = stored.outer_slice(static_cast<int64_t>(i) * rows, rows).named(keys[i]);
        }
    }
    return tensors;
}

}  // namespace sana
