// A model's equal blocks of weights, kept on the host and brought to the device one ahead of the computation.
#pragma once

#include <array>
#include <vector>

#include "core/copy_queue.h"
#include "nn/fp8.h"

namespace sana {

// Takes what the parameter holds, value or codes, to the device.
void move(Parameter& p, Device device);

class BlockStream {
public:
    // The parameters of each block, with values (or E4M3 codes) on the host. The first `resident` blocks go to the device
    // for good; the others go to page-locked memory, and two of them at a time to the device. Parameters are given their
    // places on the device in turn, so the model may be used only through enter().
    BlockStream(std::vector<std::vector<NamedParameter>> blocks, size_t resident, Device device);
    ~BlockStream();

    // The weights of a block are there for everything that the device is given from now on; the copy of the next
    // block's starts, as soon as what used their place is done.
    void enter(size_t block);

    int64_t block_bytes() const { return block_bytes_; }  // of the largest streamed block, its gaps included
    size_t streamed() const { return blocks_.size() - resident_; }  // blocks
    // block_bytes() of such a block.
    static int64_t bytes_of(const std::vector<NamedParameter>& block, DType dtype, const Fp8Rule& fp8 = {});

private:
    void fetch(size_t block, size_t slot);
    size_t after(size_t block) const { return block + 1 < blocks_.size() ? block + 1 : resident_; }

    struct Part {
        Tensor* tensor;  // of a parameter
        int64_t offset;  // in the block's place
    };
    std::vector<std::vector<NamedParameter>> blocks_;
    size_t resident_;
    Device device_;
    int64_t block_bytes_ = 0;
    std::vector<std::vector<Part>> parts_;  // of every streamed block
    StoragePtr host_;                       // all streamed blocks
    std::array<StoragePtr, 2> slots_;
    std::array<size_t, 2> holds_{SIZE_MAX, SIZE_MAX};  // the block in each slot
    CopyQueue queue_;
};

}  // namespace sana
