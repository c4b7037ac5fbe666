#include "io/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/check.h"
#include "io/atomic_file.h"
#include "io/describe.h"
#include "io/mmap.h"
#include "io/safetensors_header.h"

namespace sana {

static_assert(std::endian::native == std::endian::little,
              "checkpoints are little-endian and are not swapped");

namespace {

constexpr int64_t kLengthBytes = 8;

// The header's text; checks its length against the file.
std::string_view header_text(const MappedFile& file) {
    const std::string& path = file.path();
    std::string_view start = file.text().substr(0, 512);
    if (!looks_like_safetensors(start)) {
        std::string foreign = describe_foreign(start);
        if (!foreign.empty()) fail_input(path, ": this is ", foreign);
    }
    check_input(file.bytes() >= kLengthBytes, path, ": ", file.bytes(),
                " bytes are too few for a safetensors file: the file is truncated: download it again");
    uint64_t length = 0;
    std::memcpy(&length, file.data(), sizeof length);
    std::string_view rest = file.text().substr(kLengthBytes);
    check_input(length <= kLargestHeader, path, ": a header of ", length, " bytes is announced, at most ",
                kLargestHeader, " are allowed: this is no safetensors file, or it is damaged");
    check_input(length >= 2 && !(rest.size() > 0 && rest[0] != '{'), path,
                ": this is no safetensors file (no header where one has to be)");
    check_input(length <= rest.size(), path, ": a header of ", length,
                " bytes is announced, but the file has only ", file.bytes(),
                " bytes: the file is truncated: download it again");
    return rest.substr(0, length);
}

StoragePtr copy_of(const MappedFile& file, int64_t begin, int64_t bytes) {
    StoragePtr storage = allocate(bytes, kCpu);
    std::memcpy(storage->data(), file.data() + begin, static_cast<size_t>(bytes));
    return storage;
}

struct Named {
    const std::string* name;
    const Tensor* tensor;
};

std::vector<Named> in_file_order(const TensorMap& tensors) {
    std::vector<Named> order;
    for (const auto& [name, tensor] : tensors) order.push_back({&name, &tensor});
    std::stable_sort(order.begin(), order.end(), [](const Named& a, const Named& b) {
        return size_of(a.tensor->dtype()) > size_of(b.tensor->dtype());
    });
    return order;
}

std::string json_text(const std::string& path, const std::string& text) {
    try {
        return nlohmann::json(text).dump();
    } catch (const nlohmann::json::exception&) {
        fail_input(path, ": the name or metadata ", in_quotes(text), " is not UTF-8 and cannot be written");
    }
}

std::string header_of(const std::string& path, const std::vector<Named>& order, Metadata metadata) {
    metadata.emplace("format", "pt");
    std::string text = "{\"__metadata__\":{";
    bool first = true;
    for (const auto& [key, value] : metadata) {
        text += join(first ? "" : ",", json_text(path, key), ":", json_text(path, value));
        first = false;
    }
    text += '}';
    int64_t offset = 0;
    for (const auto& [name, tensor] : order) {
        text += join(",", json_text(path, *name), ":{\"dtype\":\"", safetensors_dtype(tensor->dtype()),
                     "\",\"shape\":[");
        for (int i = 0; i < tensor->rank(); ++i) text += join(i == 0 ? "" : ",", tensor->dim(i));
        text += join("],\"data_offsets\":[", offset, ",", offset + tensor->bytes(), "]}");
        offset += tensor->bytes();
    }
    text += '}';
    text.resize((text.size() + 7) / 8 * 8, ' ');
    return text;
}

}  // namespace

Checkpoint read_safetensors(const std::string& path) {
    std::shared_ptr<MappedFile> file = MappedFile::open(path);
    std::string_view text = header_text(*file);
    int64_t data_begin = kLengthBytes + static_cast<int64_t>(text.size());
    SafetensorsHeader header = parse_safetensors_header(text, file->bytes() - data_begin, path);

    Checkpoint checkpoint;
    for (const auto& [name, entry] : header.entries) {
        int64_t begin = data_begin + entry.begin, bytes = entry.end - entry.begin;
        bool aligned = begin % size_of(entry.dtype) == 0;
        StoragePtr storage = aligned ? slice_of(file, begin, bytes) : copy_of(*file, begin, bytes);
        checkpoint.tensors.emplace(name, Tensor(storage, 0, entry.dtype, entry.shape).named(name));
        checkpoint.files.emplace(name, path);
    }
    checkpoint.metadata = std::move(header.metadata);
    return checkpoint;
}

void write_safetensors(const std::string& path, const TensorMap& tensors, const Metadata& metadata) {
    for (const auto& [name, tensor] : tensors) {
        check(tensor.defined(), path, ": tensor ", name, " to be written is undefined");
        check(tensor.device() == kCpu, path, ": tensor ", name, " is on ", tensor.device(),
              ": copy it to the CPU before writing");
        check_input(name != "__metadata__", path,
                    ": no tensor can be named __metadata__ in a safetensors file");
    }
    std::vector<Named> order = in_file_order(tensors);
    std::string header = header_of(path, order, metadata);
    check_input(static_cast<int64_t>(header.size()) <= kLargestHeader, path, ": the header would have ",
                header.size(), " bytes, at most ", kLargestHeader, " are allowed");
    auto length = static_cast<uint64_t>(header.size());
    AtomicFile file(path);
    file.write(&length, kLengthBytes);
    file.write(header);
    for (const auto& [name, tensor] : order) {
        Tensor dense = tensor->contiguous();
        file.write(dense.raw(), dense.bytes());
    }
    file.commit();
}

}  // namespace sana
