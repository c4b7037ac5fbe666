#include "ops/kernels.h"

namespace sana {

const Kernels& kernels(Device device) { return device.type == DeviceType::cpu ? cpu_kernels : cuda_kernels; }

Dims bind_op(const char* op, std::initializer_list<Operand> operands) {
    Dims dims;
    for (const Operand& operand : operands) {
        check(operand.tensor.defined() || operand.may_be_none, op, ": ", operand.dims, " is missing");
        try {
            bind_one(dims, operand.tensor, operand.dims);
        } catch (const Error& error) {
            std::string message = error.what();
            message = message.substr(0, message.find('\n'));  // the scope path is added anew
            for (const Operand& each : operands) {
                message +=
                    join(&each == operands.begin() ? "; operands " : ", ", each.dims, " ", each.tensor);
            }
            fail(op, ": ", message);
        }
    }
    return dims;
}

void check_device(const char* op, const Tensor& operand, const Tensor& x) {
    check(!operand.defined() || operand.device() == x.device(), op, ": ", operand, " is on ",
          operand.device(), " but ", x, " is on ", x.device());
}

DType same_dtype(const char* op, std::initializer_list<const Tensor*> tensors) {
    const Tensor* first = nullptr;
    for (const Tensor* tensor : tensors) {
        if (!tensor->defined()) continue;
        if (first == nullptr) first = tensor;
        check(tensor->dtype() == first->dtype(), op, ": ", *tensor, " meets ", *first,
              "; dtypes do not mix, convert one with .to(", first->dtype(), ")");
        check(tensor->device() == first->device(), op, ": ", *tensor, " is on ", tensor->device(), " but ",
              *first, " is on ", first->device());
    }
    check(first != nullptr, op, ": no input");
    check(is_float(first->dtype()), op, ": ", *first, " is not of a floating dtype");
    return first->dtype();
}

}  // namespace sana
