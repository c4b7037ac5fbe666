#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "core/check.h"
#include "io/bounds.h"
#include "io/describe.h"
#include "io/mmap.h"
#include "io/pickle.h"
#include "io/pth.h"
#include "io/zip.h"

namespace sana {

namespace {

using Value = PickleValue;
using Kind = PickleValue::Kind;

// Elements of a strided view, in order, to dense memory. T: an integer of the element's size.
template <class T>
void gather(const T* from, const Shape& shape, Shape strides, T* to) {
    // A dimension of 1 is never stepped along; its stride may be any number.
    for (int i = 0; i < shape.rank(); ++i) {
        if (shape[i] == 1) strides[i] = 0;
    }
    int last = shape.rank() - 1;
    int64_t cols = shape[last], step = strides[last];
    Shape index = shape;
    for (int i = 0; i < shape.rank(); ++i) index[i] = 0;
    const T* row = from;
    while (true) {
        for (int64_t c = 0; c < cols; ++c) *to++ = row[c * step];
        int axis = last - 1;
        for (; axis >= 0; --axis) {
            row += strides[axis];
            if (++index[axis] < shape[axis]) break;
            row -= shape[axis] * strides[axis];
            index[axis] = 0;
        }
        if (axis < 0) return;
    }
}

bool is_dense(const Shape& shape, const Shape& strides) {
    int64_t expected = 1;
    for (int i = shape.rank() - 1; i >= 0; --i) {
        if (shape[i] != 1 && strides[i] != expected) return false;
        expected *= shape[i];
    }
    return true;
}

std::string pickle_name(const ZipReader& zip, const std::string& path) {
    std::string found;
    for (const std::string& name : zip.names()) {
        if (name != "data.pkl" && !name.ends_with("/data.pkl")) continue;
        check_input(found.empty(), path, ": holds two pickles, ", found, " and ", name,
                    ": this is no file of torch.save");
        found = name;
    }
    check_input(!found.empty(), path, ": is a zip file, but not one of torch.save (it has no data.pkl)");
    return found;
}

class Reader {
public:
    explicit Reader(std::shared_ptr<MappedFile> file)
        : path_(file->path()),
          file_(std::move(file)),
          zip_(file_),
          budget_(4 * file_->bytes() + (int64_t{64} << 20)) {
        std::string name = pickle_name(zip_, path_);
        prefix_ = name.substr(0, name.size() - std::strlen("data.pkl"));
        check_input(!zip_.has(prefix_ + "constants.pkl"), path_,
                    ": is a TorchScript program, which is not read: save the weights alone "
                    "(torch.save(module.state_dict(), path))");
        if (zip_.has(prefix_ + "byteorder")) {
            StoragePtr order = zip_.read(prefix_ + "byteorder");
            check_input(order->bytes() == 6 && std::memcmp(order->data(), "little", 6) == 0, path_,
                        ": its numbers are not little-endian, which is not supported");
        }
        pickle_bytes_ = zip_.read(name);
        pickle_ = read_pickle({reinterpret_cast<const char*>(pickle_bytes_->data()),
                               static_cast<size_t>(pickle_bytes_->bytes())},
                              path_);
    }

    Checkpoint read() {
        const Value& root = *pickle_.root;
        check_input(root.kind == Kind::dict, path_, ": holds no dictionary of weights, but another object");
        collect(weights_of(root), "", 0);
        if (out_.tensors.empty()) {
            std::string keys;
            for (size_t i = 0; i < root.items.size() && keys.size() < 300; i += 2) {
                if (root.items[i]->kind == Kind::text)
                    keys += join(keys.empty() ? "" : ", ", root.items[i]->text);
            }
            fail_input(path_, ": holds no tensors; its keys are: ", in_quotes(keys));
        }
        for (size_t i = 0; i < root.items.size(); i += 2) {
            const Value& value = *root.items[i + 1];
            if (root.items[i]->kind != Kind::text) continue;
            std::string text;
            switch (value.kind) {
                case Kind::text: text = value.text; break;
                case Kind::integer: text = std::to_string(value.integer); break;
                case Kind::boolean: text = value.integer != 0 ? "true" : "false"; break;
                case Kind::real: text = join(value.real); break;
                default: continue;
            }
            spend(static_cast<int64_t>(text.size()));
            out_.metadata[key_of(*root.items[i])] = text;
        }
        return std::move(out_);
    }

private:
    // The file's own size bounds what reading it may take; a small file must not ask for much more than it holds.
    void spend(int64_t bytes) {
        budget_ -= bytes;
        check_input(budget_ >= 0, path_, ": unfolds to far more than its ", file_->bytes(),
                    " bytes (repeated or expanded tensors): refused");
    }

    std::string key_of(const Value& key) {
        constexpr size_t kLongest = 1024;
        if (key.kind == Kind::integer) return std::to_string(key.integer);
        check_input(key.kind == Kind::text && key.text.size() <= kLongest, path_,
                    ": a key of a dictionary of weights is no text, or longer than ", kLongest, " bytes");
        return std::string(key.text);
    }

    static bool has_tensor(const Value& dict) {
        for (size_t i = 1; i < dict.items.size(); i += 2) {
            if (dict.items[i]->kind == Kind::tensor) return true;
        }
        return false;
    }

    const Value& weights_of(const Value& root) {
        auto under = [&](std::string_view key) -> const Value* {
            for (size_t i = 0; i < root.items.size(); i += 2) {
                const Value &name = *root.items[i], &value = *root.items[i + 1];
                if (name.kind == Kind::text && name.text == key && value.kind == Kind::dict) return &value;
            }
            return nullptr;
        };
        if (const Value* found = under("state_dict")) return *found;
        if (has_tensor(root)) return root;
        for (const char* key : {"model", "ema", "state_dict_ema"}) {
            const Value* found = under(key);
            if (found != nullptr && has_tensor(*found)) return *found;
        }
        return root;
    }

    void collect(const Value& value, const std::string& name, int depth) {
        constexpr int kDeepest = 200;
        constexpr int64_t kVisit = 64;
        check_input(depth <= kDeepest, path_, ": dictionaries are nested deeper than ", kDeepest,
                    ": refused");
        spend(kVisit + static_cast<int64_t>(name.size()));
        auto inside = [&](const std::string& key) { return name.empty() ? key : name + "." + key; };
        if (value.kind == Kind::dict) {
            for (size_t i = 0; i < value.items.size(); i += 2) {
                const Value& item = *value.items[i + 1];
                bool holds = item.kind == Kind::dict || item.kind == Kind::list || item.kind == Kind::tuple ||
                             item.kind == Kind::tensor;
                if (holds) collect(item, inside(key_of(*value.items[i])), depth + 1);
            }
        } else if (value.kind == Kind::list || value.kind == Kind::tuple) {
            for (size_t i = 0; i < value.items.size(); ++i)
                collect(*value.items[i], inside(std::to_string(i)), depth + 1);
        } else if (value.kind == Kind::tensor) {
            Tensor tensor = tensor_of(pickle_.tensors[static_cast<size_t>(value.integer)], name);
            check_input(out_.tensors.emplace(name, tensor.named(name)).second, path_, ": tensor ",
                        in_quotes(name), " is there twice");
            out_.files.emplace(name, path_);
        }
    }

    StoragePtr bytes_of(const PickleStorage& storage, const std::string& name) {
        std::string key(storage.key.substr(0, 256));
        std::string record = prefix_ + "data/" + key;
        check_input(zip_.has(record), path_, ": tensor ", in_quotes(name), ": the record ", in_quotes(record),
                    " is not in the file: the file is incomplete: download it again");
        int64_t needed;
        if (__builtin_mul_overflow(storage.elements, size_of(storage.dtype), &needed) ||
            needed > zip_.size(record)) {
            fail_input(path_, ": tensor ", in_quotes(name), ": a storage of ", storage.elements,
                       " elements of ", storage.dtype, " is announced, but its record ", in_quotes(record),
                       " has ", zip_.size(record), " bytes: the file is damaged: download it again");
        }
        StoragePtr& bytes = storages_[key];
        if (bytes == nullptr) {
            bytes = zip_.read(record);
            constexpr uintptr_t kAlignment = 8;
            if (reinterpret_cast<uintptr_t>(bytes->data()) % kAlignment != 0) {
                StoragePtr aligned = allocate(bytes->bytes(), kCpu);
                std::memcpy(aligned->data(), bytes->data(), static_cast<size_t>(bytes->bytes()));
                bytes = aligned;
            }
        }
        return bytes;
    }

    Tensor tensor_of(const PickleTensor& tensor, const std::string& name) {
        const PickleStorage& storage = pickle_.storages[tensor.storage];
        std::optional<int64_t> bytes = checked_bytes(tensor.dtype, tensor.shape);
        if (!bytes) {
            fail_input(path_, ": tensor ", in_quotes(name), ": the size of shape ", tensor.shape,
                       " overflows 63 bits: the file is damaged");
        }
        if (*bytes == 0) return empty(tensor.shape, tensor.dtype);
        int64_t size = size_of(tensor.dtype);
        int64_t available = storage.elements * size_of(storage.dtype) / size;
        StoragePtr data = bytes_of(storage, name);
        std::optional<int64_t> extent = checked_extent(tensor.offset, tensor.shape, tensor.strides);
        if (!extent || *extent > available) {
            fail_input(path_, ": tensor ", in_quotes(name), ": shape ", tensor.shape, " with strides ",
                       tensor.strides, " from element ", tensor.offset, " reaches behind its storage of ",
                       available, " elements: the file is damaged");
        }
        if (is_dense(tensor.shape, tensor.strides))
            return Tensor(data, tensor.offset * size, tensor.dtype, tensor.shape);
        spend(*bytes);
        Tensor out = empty(tensor.shape, tensor.dtype);
        const std::byte* from = data->data() + tensor.offset * size;
        auto copy_as = [&]<class T>() {
            gather(reinterpret_cast<const T*>(from), tensor.shape, tensor.strides,
                   static_cast<T*>(out.raw()));
        };
        switch (size) {
            case 1: copy_as.template operator()<uint8_t>(); break;
            case 2: copy_as.template operator()<uint16_t>(); break;
            case 4: copy_as.template operator()<uint32_t>(); break;
            default: copy_as.template operator()<uint64_t>(); break;
        }
        return out;
    }

    std::string path_, prefix_;
    std::shared_ptr<MappedFile> file_;
    ZipReader zip_;
    int64_t budget_;
    StoragePtr pickle_bytes_;
    Pickle pickle_;
    std::map<std::string, StoragePtr> storages_;
    Checkpoint out_;
};

}  // namespace

Checkpoint read_pth(const std::string& path) {
    std::shared_ptr<MappedFile> file = MappedFile::open(path);
    std::string_view start = file->text().substr(0, 512);
    if (!start.starts_with("PK\x03\x04")) {
        check_input(!looks_like_safetensors(start), path,
                    ": this is a safetensors file, not one of torch.save");
        std::string foreign = describe_foreign(start);
        if (!foreign.empty()) fail_input(path, ": this is ", foreign);
        fail_input(path, ": is no file of torch.save (it begins with ", in_quotes(start.substr(0, 16)),
                   "): check the path, or download it again");
    }
    return Reader(file).read();
}

}  // namespace sana
