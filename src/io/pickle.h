// A restricted reader of pickles: builds plain containers and descriptions of tensors, and nothing else.
// Format: Python's pickletools.py (opcodes of protocols 2 to 5); what PyTorch puts in it: torch/serialization.py and
// torch/_utils.py. A pickle is a program that may name any function to call; here a fixed list of names is known,
// whose effects are built in, and any other name ends the reading with an InputError that says which.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "core/shape.h"

namespace sana {

struct PickleValue {
    enum class Kind : uint8_t {
        none,
        boolean,
        integer,
        real,
        text,
        tuple,
        list,
        dict,      // items: key, value, key, value ...
        function,  // one of the known names
        storage,   // integer: index in Pickle::storages
        tensor,    // integer: index in Pickle::tensors
        other      // known and harmless, of no use here: bytes, sets, devices
    };
    Kind kind = Kind::none;
    int64_t integer = 0;
    double real = 0;
    std::string_view text;  // into the pickle's bytes
    std::vector<PickleValue*> items;
};

// A record of the archive, <prefix>/data/<key>.
struct PickleStorage {
    std::string_view key;
    DType dtype = DType::U8;
    bool untyped = false;  // then elements are bytes and the tensor says the dtype
    int64_t elements = 0;
};

// Strides and offset count elements. All numbers are as the file says: unchecked but for their number and sign.
struct PickleTensor {
    size_t storage = 0;
    DType dtype = DType::F32;
    int64_t offset = 0;
    Shape shape, strides;
};

struct Pickle {
    const PickleValue* root = nullptr;
    std::deque<PickleValue> values;  // owns all values: they may refer to each other in circles
    std::vector<PickleStorage> storages;
    std::vector<PickleTensor> tensors;
};

// bytes must outlive the result. path: for messages. Bounded by the length of the pickle (256 MiB) and by 4 million values.
Pickle read_pickle(std::string_view bytes, const std::string& path);

}  // namespace sana
