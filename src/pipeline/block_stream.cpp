#include "pipeline/block_stream.h"

#include <cstring>

#include "core/parallel.h"

namespace sana {

namespace {

constexpr int64_t kAlignment = 256;

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

void copy_bytes(const Tensor& from, std::byte* to) {
    constexpr int64_t kPiece = int64_t{4} << 20;
    const std::byte* data = static_cast<const std::byte*>(from.raw());
    int64_t bytes = from.bytes();
    parallel_for((bytes + kPiece - 1) / kPiece, kPiece, [&](int64_t i) {
        std::memcpy(to + i * kPiece, data + i * kPiece,
                    static_cast<size_t>(std::min(kPiece, bytes - i * kPiece)));
    });
}

// What holds the parameter: its value, or codes and their scales.
std::vector<Tensor*> tensors_of(Parameter& p) {
    if (p.codes.defined()) return {&p.codes.codes, &p.codes.scale};
    return {&p.value};
}

}  // namespace

void move(Parameter& p, Device device) {
    for (Tensor* tensor : tensors_of(p)) *tensor = tensor->to(device);
}

int64_t BlockStream::bytes_of(const std::vector<NamedParameter>& block, DType dtype, const Fp8Rule& fp8) {
    int64_t bytes = 0;
    for (const NamedParameter& p : block) {
        const Shape& shape = p.parameter->shape;
        if (fp8.takes(p)) {
            bytes += aligned(shape.numel()) + aligned(shape[0] * size_of(DType::F32));
        } else {
            bytes += aligned(shape.numel() * size_of(p.parameter->keep_fp32 ? DType::F32 : dtype));
        }
    }
    return bytes;
}

BlockStream::BlockStream(std::vector<std::vector<NamedParameter>> blocks, size_t resident, Device device)
    : blocks_(std::move(blocks)),
      resident_(std::min(resident, blocks_.size())),
      device_(device),
      queue_(device) {
    for (size_t i = 0; i < resident_; ++i) {
        for (NamedParameter& p : blocks_[i]) move(*p.parameter, device_);
    }
    if (streamed() == 0) return;
    for (size_t i = resident_; i < blocks_.size(); ++i) {
        std::vector<Part> parts;
        int64_t bytes = 0;
        for (NamedParameter& p : blocks_[i]) {
            for (Tensor* tensor : tensors_of(*p.parameter)) {
                parts.push_back({tensor, bytes});
                bytes += aligned(tensor->bytes());
            }
        }
        parts_.push_back(std::move(parts));
        block_bytes_ = std::max(block_bytes_, bytes);
    }
    host_ = allocate_pinned(block_bytes_ * static_cast<int64_t>(streamed()), device_);
    for (size_t i = 0; i < parts_.size(); ++i) {
        std::byte* place = host_->data() + block_bytes_ * static_cast<int64_t>(i);
        for (const Part& part : parts_[i]) {
            Tensor& value = *part.tensor;
            copy_bytes(value.contiguous(), place + part.offset);
            value = Tensor(host_, 0, value.dtype(), value.shape()).named(value.name());
        }
    }
    for (size_t s = 0; s < std::min<size_t>(2, streamed()); ++s) slots_[s] = allocate(block_bytes_, device_);
    fetch(resident_, 0);
}

BlockStream::~BlockStream() {
    // The places on the device may be given to others once the copies under way have come.
    if (streamed() > 0) queue_.device_waits();
}

void BlockStream::fetch(size_t block, size_t slot) {
    queue_.wait_for_device();
    queue_.copy(host_->data() + block_bytes_ * static_cast<int64_t>(block - resident_), slots_[slot]->data(),
                block_bytes_);
    holds_[slot] = block;
}

void BlockStream::enter(size_t block) {
    if (block < resident_) return;
    size_t slot = holds_[1] == block ? 1 : 0;
    if (holds_[slot] != block) fetch(block, slot);
    queue_.device_waits();
    for (const Part& part : parts_[block - resident_]) {
        Tensor& value = *part.tensor;
        value = Tensor(slots_[slot], part.offset, value.dtype(), value.shape()).named(value.name());
    }
    size_t next = after(block), other = 1 - slot;
    if (next != block && holds_[other] != next) fetch(next, other);
}

}  // namespace sana
