#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "io/atomic_file.h"
#include "io/describe.h"
#include "io/pth.h"
#include "io/zip.h"

namespace sana {

namespace {

constexpr const char* kPrefix = "archive/";

// The class of a typed storage; null for dtypes that only untyped storages hold.
const char* storage_class(DType dtype) {
    switch (dtype) {
        case DType::F32: return "FloatStorage";
        case DType::F64: return "DoubleStorage";
        case DType::BF16: return "BFloat16Storage";
        case DType::F16: return "HalfStorage";
        case DType::I64: return "LongStorage";
        case DType::I32: return "IntStorage";
        case DType::I16: return "ShortStorage";
        case DType::I8: return "CharStorage";
        case DType::U8: return "ByteStorage";
        case DType::Bool: return "BoolStorage";
        case DType::F8E4M3:
        case DType::F8E5M2: return nullptr;
    }
    return nullptr;
}

// Writes the opcodes of protocol 2 that PyTorch's own restricted reader knows.
class PickleWriter {
public:
    PickleWriter() { out_ = "\x80\x02"; }

    void code(const char* codes) { out_ += codes; }
    void global(const char* module, const char* name) { out_ += join("c", module, "\n", name, "\n"); }
    void text(const std::string& value) {
        out_ += 'X';
        put(static_cast<uint32_t>(value.size()));
        out_ += value;
    }
    void integer(int64_t value) {
        if (value >= INT32_MIN && value <= INT32_MAX) {
            out_ += 'J';
            put(static_cast<int32_t>(value));
        } else {
            out_ += "\x8a\x08";
            put(value);
        }
    }
    void integers(const Shape& values) {
        code("(");
        for (int64_t value : values) integer(value);
        code("t");
    }
    const std::string& finish() {
        code(".");
        return out_;
    }

private:
    template <class T>
    void put(T value) {
        out_.append(reinterpret_cast<const char*>(&value), sizeof value);
    }

    std::string out_;
};

void write_tensor(PickleWriter& pickle, const Tensor& tensor, const std::string& key) {
    const char* typed = storage_class(tensor.dtype());
    pickle.global("torch._utils", typed != nullptr ? "_rebuild_tensor_v2" : "_rebuild_tensor_v3");
    pickle.code("((");
    pickle.text("storage");
    if (typed != nullptr) {
        pickle.global("torch", typed);
    } else {
        pickle.global("torch.storage", "UntypedStorage");
    }
    pickle.text(key);
    pickle.text("cpu");
    pickle.integer(typed != nullptr ? tensor.numel() : tensor.bytes());
    pickle.code("tQ");
    pickle.integer(0);  // offset
    Shape strides = tensor.shape();
    int64_t stride = 1;
    for (int i = tensor.rank() - 1; i >= 0; --i) {
        strides[i] = stride;
        stride *= std::max<int64_t>(tensor.dim(i), 1);
    }
    pickle.integers(tensor.shape());
    pickle.integers(strides);
    pickle.code("\x89");  // requires_grad: False
    pickle.global("collections", "OrderedDict");
    pickle.code(")R");  // no hooks
    if (typed == nullptr) {
        pickle.global("torch", tensor.dtype() == DType::F8E4M3 ? "float8_e4m3fn" : "float8_e5m2");
    }
    pickle.code("tR");
}

}  // namespace

void write_pth(const std::string& path, const TensorMap& tensors,
               const std::map<std::string, std::string>& metadata) {
    check_input(metadata.count("state_dict") == 0, path,
                ": the metadata has the key state_dict, which the weights have");
    PickleWriter pickle;
    pickle.code("}(");
    pickle.text("state_dict");
    pickle.global("collections", "OrderedDict");
    pickle.code(")R(");
    int64_t index = 0;
    for (const auto& [name, tensor] : tensors) {
        check(tensor.defined(), path, ": tensor ", name, " to be written is undefined");
        check(tensor.device() == kCpu, path, ": tensor ", name, " is on ", tensor.device(),
              ": copy it to the CPU before writing");
        check_input(is_utf8(name), path, ": the tensor name ", in_quotes(name),
                    " is not UTF-8 and cannot be written");
        pickle.text(name);
        write_tensor(pickle, tensor, std::to_string(index++));
    }
    pickle.code("u");
    for (const auto& [key, value] : metadata) {
        check_input(is_utf8(key) && is_utf8(value), path, ": the metadata ", in_quotes(key),
                    " is not UTF-8 and cannot be written");
        pickle.text(key);
        pickle.text(value);
    }
    pickle.code("u");

    AtomicFile file(path);
    ZipWriter zip(file);
    zip.add(join(kPrefix, "data.pkl"), pickle.finish());
    zip.add(join(kPrefix, "byteorder"), "little");
    index = 0;
    for (const auto& [name, tensor] : tensors) {
        Tensor dense = tensor.contiguous();
        zip.add(join(kPrefix, "data/", index++), dense.raw(), dense.bytes());
    }
    zip.add(join(kPrefix, "version"), "3\n");
    zip.finish();
    file.commit();
}

}  // namespace sana
