#include "io/pickle_names.h"

namespace sana {

namespace {

using Kind = PickleName::Kind;

struct Known {
    std::string_view module, name;
    Kind kind;
    std::optional<DType> dtype = std::nullopt;
};

constexpr Known kKnown[] = {
    {"torch._utils", "_rebuild_tensor_v2", Kind::rebuild_tensor},
    {"torch._utils", "_rebuild_tensor_v3", Kind::rebuild_tensor_of_dtype},
    {"torch._utils", "_rebuild_parameter", Kind::rebuild_parameter},
    {"torch._utils", "_rebuild_parameter_with_state", Kind::rebuild_parameter},
    {"collections", "OrderedDict", Kind::ordered_dict},
    {"torch", "Size", Kind::size},
    {"torch", "device", Kind::harmless},
    {"torch.serialization", "_get_layout", Kind::harmless},
    {"_codecs", "encode", Kind::harmless},  // how protocol 2 spells bytes
    {"builtins", "set", Kind::harmless},
    {"__builtin__", "set", Kind::harmless},
    {"builtins", "bytearray", Kind::harmless},
    {"__builtin__", "bytearray", Kind::harmless},
    {"builtins", "complex", Kind::harmless},
    {"__builtin__", "complex", Kind::harmless},
    {"torch", "DoubleStorage", Kind::storage, DType::F64},
    {"torch", "FloatStorage", Kind::storage, DType::F32},
    {"torch", "HalfStorage", Kind::storage, DType::F16},
    {"torch", "BFloat16Storage", Kind::storage, DType::BF16},
    {"torch", "LongStorage", Kind::storage, DType::I64},
    {"torch", "IntStorage", Kind::storage, DType::I32},
    {"torch", "ShortStorage", Kind::storage, DType::I16},
    {"torch", "CharStorage", Kind::storage, DType::I8},
    {"torch", "ByteStorage", Kind::storage, DType::U8},
    {"torch", "BoolStorage", Kind::storage, DType::Bool},
    {"torch.storage", "UntypedStorage", Kind::storage},
    {"torch", "UntypedStorage", Kind::storage},
    {"torch", "float64", Kind::dtype, DType::F64},
    {"torch", "float32", Kind::dtype, DType::F32},
    {"torch", "float16", Kind::dtype, DType::F16},
    {"torch", "bfloat16", Kind::dtype, DType::BF16},
    {"torch", "float8_e4m3fn", Kind::dtype, DType::F8E4M3},
    {"torch", "float8_e5m2", Kind::dtype, DType::F8E5M2},
    {"torch", "int64", Kind::dtype, DType::I64},
    {"torch", "int32", Kind::dtype, DType::I32},
    {"torch", "int16", Kind::dtype, DType::I16},
    {"torch", "int8", Kind::dtype, DType::I8},
    {"torch", "uint8", Kind::dtype, DType::U8},
    {"torch", "bool", Kind::dtype, DType::Bool},
};

}  // namespace

std::optional<PickleName> find_pickle_name(std::string_view module, std::string_view name) {
    for (const Known& known : kKnown) {
        if (known.module == module && known.name == name) return PickleName{known.kind, known.dtype};
    }
    return std::nullopt;
}

}  // namespace sana
