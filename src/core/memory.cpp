#include "core/memory.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <list>
#include <map>
#include <mutex>

#include "core/check.h"

namespace sana {

namespace {

constexpr int64_t kSmallStep = 512;
constexpr int64_t kLargeStep = int64_t{2} << 20;
constexpr int64_t kSmallLimit = int64_t{1} << 20;
constexpr int64_t kSentinel = 1024;
constexpr unsigned char kSentinelByte = 0xa5;

std::atomic<int> guards = 0;
std::atomic<int64_t> guard_violations = 0;

int64_t rounded_size(int64_t bytes) {
    int64_t step = bytes < kSmallLimit ? kSmallStep : kLargeStep;
    return std::max<int64_t>(step, (bytes + step - 1) / step * step);
}

// The cache of one device. Blocks wait in `free_` by size and in `order_` by the time they were freed.
class Allocator {
public:
    void* take(int64_t size) {
        std::lock_guard lock(mutex_);
        auto it = free_.lower_bound(size);
        void* block = nullptr;
        if (it != free_.end() && it->first <= std::min(2 * size, size + 2 * kLargeStep)) {
            block = *it->second;
            taken_size_[block] = it->first;
            statistics_.cached -= it->first;
            order_.erase(it->second);
            free_.erase(it);
        } else {
            block = system_allocate(size);
            taken_size_[block] = size;
        }
        statistics_.active += taken_size_[block];
        statistics_.peak = std::max(statistics_.peak, statistics_.active);
        return block;
    }

    void give(void* block) {
        std::lock_guard lock(mutex_);
        auto it = taken_size_.find(block);
        int64_t size = it->second;
        taken_size_.erase(it);
        statistics_.active -= size;
        statistics_.cached += size;
        order_.push_back(block);
        free_.emplace(size, std::prev(order_.end()));
        shrink(limit_);
    }

    MemoryStatistics statistics() {
        std::lock_guard lock(mutex_);
        return statistics_;
    }

    void reset_peak() {
        std::lock_guard lock(mutex_);
        statistics_.peak = statistics_.active;
    }

    void set_limit(int64_t bytes) {
        std::lock_guard lock(mutex_);
        limit_ = bytes;
        shrink(limit_);
    }

    void release() {
        std::lock_guard lock(mutex_);
        shrink(0);
    }

private:
    using Order = std::list<void*>;

    void* system_allocate(int64_t size) {
        statistics_.system_allocations += 1;
        size_t alignment = size >= kSmallLimit ? static_cast<size_t>(kLargeStep) : 64;
        void* block = std::aligned_alloc(alignment, static_cast<size_t>(size));
        if (block == nullptr) {
            shrink(0);
            block = std::aligned_alloc(alignment, static_cast<size_t>(size));
        }
        check(block != nullptr, "out of memory: ", size >> 20, " MiB asked, ", statistics_.active >> 20,
              " MiB in use; try a smaller size, fewer frames or --precision bf16");
        // Fewer page faults on large tensors; advice only, so its result does not matter.
        if (size >= kLargeStep) (void)madvise(block, static_cast<size_t>(size), MADV_HUGEPAGE);
        return block;
    }

    void shrink(int64_t limit) {
        while (statistics_.cached > limit && !order_.empty()) {
            void* block = order_.front();
            auto it =
                std::find_if(free_.begin(), free_.end(), [&](auto& entry) { return *entry.second == block; });
            statistics_.cached -= it->first;
            free_.erase(it);
            order_.pop_front();
            std::free(block);
        }
    }

    std::mutex mutex_;
    Order order_;
    std::multimap<int64_t, Order::iterator> free_;
    std::map<void*, int64_t> taken_size_;
    MemoryStatistics statistics_;
    int64_t limit_ = INT64_MAX;
};

Allocator& allocator(Device device) {
    check(device.type == DeviceType::cpu, "this build has no memory on device ", device);
    static Allocator* cpu = new Allocator;  // never destroyed: storages may outlive static destruction
    return *cpu;
}

class CachedStorage : public Storage {
public:
    CachedStorage(void* block, int64_t front, int64_t bytes, Device device)
        : Storage(static_cast<std::byte*>(block) + front, bytes, device), block_(block), front_(front) {}

    ~CachedStorage() override {
        derived.reset();
        if (front_ > 0) check_sentinels();
        allocator(device()).give(block_);
    }

private:
    void check_sentinels() const {
        auto broken = [](const std::byte* p) {
            return std::any_of(p, p + kSentinel, [](std::byte b) { return b != std::byte{kSentinelByte}; });
        };
        if (broken(data() - kSentinel) || broken(data() + bytes())) guard_violations += 1;
    }

    void* block_;
    int64_t front_;
};

}  // namespace

StoragePtr allocate(int64_t bytes, Device device) {
    check(bytes >= 0, "a block of ", bytes, " bytes was asked for");
    bool guarded = guards > 0;
    int64_t front = guarded ? kSentinel : 0;
    void* block = allocator(device).take(rounded_size(bytes + 2 * front));
    auto storage = std::make_shared<CachedStorage>(block, front, bytes, device);
    if (guarded) {
        std::memset(storage->data() - front, kSentinelByte, static_cast<size_t>(front));
        std::memset(storage->data(), 0xff, static_cast<size_t>(bytes));
        std::memset(storage->data() + bytes, kSentinelByte, static_cast<size_t>(front));
    }
    return storage;
}

MemoryStatistics memory_statistics(Device device) { return allocator(device).statistics(); }
void reset_peak(Device device) { allocator(device).reset_peak(); }
void release_cached(Device device) { allocator(device).release(); }
void set_cache_limit(Device device, int64_t bytes) { allocator(device).set_limit(bytes); }

int64_t peak_resident_bytes() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss * 1024;
}

MemoryGuard::MemoryGuard() { guards += 1; }
MemoryGuard::~MemoryGuard() { guards -= 1; }
int64_t MemoryGuard::violations() { return guard_violations; }

}  // namespace sana
