#include "core/copy_queue.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "core/cuda/device.h"
#include "core/parallel.h"

namespace sana {

namespace {

constexpr int64_t kPage = int64_t{2} << 20;

class PinnedStorage : public Storage {
public:
    PinnedStorage(void* data, int64_t bytes) : Storage(data, bytes, kCpu) { cuda::pin(data, bytes); }
    ~PinnedStorage() override {
        cuda::unpin(data());
        std::free(data());
    }
};

}  // namespace

StoragePtr allocate_pinned(int64_t bytes, Device device) {
    if (device == kCpu) return allocate(bytes, kCpu);
    // Large pages, touched by all threads: locking them is then quick.
    int64_t size = std::max<int64_t>(kPage, (bytes + kPage - 1) / kPage * kPage);
    void* data = std::aligned_alloc(static_cast<size_t>(kPage), static_cast<size_t>(size));
    if (data == nullptr) {
        throw OutOfMemory(join("out of memory: ", bytes >> 20, " MiB of the host's memory were asked for"));
    }
    (void)madvise(data, static_cast<size_t>(size), MADV_HUGEPAGE);  // advice only
    parallel_for(size / kPage, kPage, [&](int64_t i) { static_cast<char*>(data)[i * kPage] = 0; });
    return std::make_shared<PinnedStorage>(data, size);
}

CopyQueue::CopyQueue(Device device) : device_(device) {
    if (device_ != kCpu) queue_ = cuda::make_queue(device_.index);
}

CopyQueue::~CopyQueue() {
    if (device_ != kCpu) cuda::destroy_queue(device_.index, queue_);
}

void CopyQueue::copy(const std::byte* from, std::byte* to, int64_t bytes) {
    if (device_ == kCpu) {
        std::memcpy(to, from, static_cast<size_t>(bytes));
    } else {
        cuda::queue_copy(device_.index, queue_, from, to, bytes);
    }
}

void CopyQueue::wait_for_device() {
    if (device_ != kCpu) cuda::queue_waits_for_device(device_.index, queue_);
}

void CopyQueue::finish() {
    if (device_ != kCpu) cuda::finish_queue(device_.index, queue_);
}

void CopyQueue::device_waits() {
    if (device_ != kCpu) cuda::device_waits_for_queue(device_.index, queue_);
}

namespace {

// Two places that are filled and copied in turn.
struct Stage {
    static constexpr int64_t kBytes = int64_t{32} << 20;

    explicit Stage(Device device) : queue(device), place(allocate_pinned(kBytes, device)) {}
    CopyQueue queue;
    StoragePtr place;
};

struct Stages {
    explicit Stages(Device device) : first(device), second(device) {}
    Stage first, second;
    std::mutex mutex;
};

Stages& stages_of(Device device) {
    // Never destroyed: the driver may be gone before static destruction.
    static std::mutex mutex;
    static std::map<int, Stages*> all;
    std::lock_guard lock(mutex);
    Stages*& stages = all[device.index];
    if (stages == nullptr) stages = new Stages(device);
    return *stages;
}

}  // namespace

void upload(const std::byte* from, std::byte* to, int64_t bytes, Device device) {
    constexpr int64_t kPiece = int64_t{1} << 20;
    Stages& stages = stages_of(device);
    std::lock_guard lock(stages.mutex);
    Stage *now = &stages.first, *other = &stages.second;
    now->queue.wait_for_device();
    other->queue.wait_for_device();
    for (int64_t start = 0; start < bytes; start += Stage::kBytes) {
        int64_t n = std::min(Stage::kBytes, bytes - start);
        now->queue.finish();
        std::byte* place = now->place->data();
        parallel_for((n + kPiece - 1) / kPiece, kPiece, [&](int64_t i) {
            std::memcpy(place + i * kPiece, from + start + i * kPiece,
                        static_cast<size_t>(std::min(kPiece, n - i * kPiece)));
        });
        now->queue.copy(place, to + start, n);
        std::swap(now, other);
    }
    now->queue.device_waits();
    other->queue.device_waits();
}

}  // namespace sana
