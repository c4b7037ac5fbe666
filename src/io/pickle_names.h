// The names that a torch.save file may use, and what they stand for.
#pragma once

#include <optional>
#include <string_view>

#include "core/dtype.h"

namespace sana {

struct PickleName {
    enum class Kind : uint8_t {
        rebuild_tensor,  // (storage, offset, shape, strides, requires_grad, hooks[, metadata]) -> tensor
        rebuild_tensor_of_dtype,  // (storage, offset, shape, strides, requires_grad, hooks, dtype[, ...]) -> tensor
        rebuild_parameter,        // (tensor, requires_grad, hooks[, state]) -> the tensor
        storage,                  // a storage class; dtype, or none when untyped
        dtype,                    // torch.float8_e4m3fn
        ordered_dict,             // () -> dict
        size,                     // (tuple) -> the tuple
        harmless                  // called with anything: a value of no use here
    };
    Kind kind;
    std::optional<DType> dtype;
};

// What module.name stands for; nothing when it is not on the list.
std::optional<PickleName> find_pickle_name(std::string_view module, std::string_view name);

}  // namespace sana
