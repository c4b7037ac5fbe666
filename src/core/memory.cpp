#include "core/memory.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <list>
#include <map>
#include <mutex>
#include <utility>

#include "core/available_memory.h"
#include "core/check.h"
#include "core/cuda/device.h"

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

// What the system could give without swapping.
int64_t free_host_memory() {
    std::ifstream file("/proc/meminfo");
    std::string key, unit;
    for (int64_t kib = 0; file >> key >> kib; std::getline(file, unit)) {
        if (key == "MemAvailable:") return kib * 1024;
    }
    return sysconf(_SC_AVPHYS_PAGES) * sysconf(_SC_PAGESIZE);
}

}  // namespace

// The cache of one device. Blocks wait in `free_` by size and in `order_` by the time they were freed.
class Allocator {
public:
    // parent: where a pool's blocks come from; nullptr: the system.
    explicit Allocator(Device device, Allocator* parent = nullptr) : device_(device), parent_(parent) {}
    ~Allocator() { shrink(0); }

    Device device() const { return device_; }

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
        statistics_.peak_taken = std::max(statistics_.peak_taken, statistics_.active + statistics_.cached);
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
        statistics_.peak_taken = statistics_.active + statistics_.cached;
    }

    void set_limit(int64_t bytes) {
        std::lock_guard lock(mutex_);
        limit_ = bytes;
        shrink(limit_);
    }

    void set_capacity(int64_t bytes) {
        std::lock_guard lock(mutex_);
        capacity_ = bytes;
    }

    int64_t available() {
        int64_t free =
            device_.type == DeviceType::cuda ? cuda::device_info(device_.index).free : free_host_memory();
        std::lock_guard lock(mutex_);
        return std::min(free + statistics_.cached, capacity_ - statistics_.active);
    }

    void release() {
        std::lock_guard lock(mutex_);
        shrink(0);
    }

private:
    using Order = std::list<void*>;

    void* system_allocate(int64_t size) {
        statistics_.system_allocations += 1;
        void* block = ask(size);
        if (block == nullptr) {
            shrink(0);
            block = ask(size);
        }
        if (block == nullptr) {
            throw OutOfMemory(join("out of memory on ", device_, ": ", size >> 20, " MiB asked, ",
                                   statistics_.active >> 20,
                                   " MiB in use; try a smaller size, fewer frames or --precision bf16"));
        }
        return block;
    }

    void* ask(int64_t size) {
        if (parent_ != nullptr) return parent_->take(size);
        if (statistics_.active + statistics_.cached + size > capacity_) return nullptr;
        if (device_.type == DeviceType::cuda) return cuda::allocate(device_.index, size);
        size_t alignment = size >= kSmallLimit ? static_cast<size_t>(kLargeStep) : 64;
        void* block = std::aligned_alloc(alignment, static_cast<size_t>(size));
        // Fewer page faults on large tensors; advice only, so its result does not matter.
        if (block != nullptr && size >= kLargeStep)
            (void)madvise(block, static_cast<size_t>(size), MADV_HUGEPAGE);
        return block;
    }

    void drop(void* block) {
        if (parent_ != nullptr) return parent_->give(block);
        if (device_.type == DeviceType::cuda) return cuda::release(device_.index, block);
        std::free(block);
    }

    void shrink(int64_t limit) {
        while (statistics_.cached > limit && !order_.empty()) {
            void* block = order_.front();
            auto it =
                std::find_if(free_.begin(), free_.end(), [&](auto& entry) { return *entry.second == block; });
            statistics_.cached -= it->first;
            free_.erase(it);
            order_.pop_front();
            drop(block);
        }
    }

    Device device_;
    Allocator* parent_;
    std::mutex mutex_;
    Order order_;
    std::multimap<int64_t, Order::iterator> free_;
    std::map<void*, int64_t> taken_size_;
    MemoryStatistics statistics_;
    int64_t limit_ = INT64_MAX, capacity_ = INT64_MAX;
};

namespace {

std::shared_ptr<Allocator> allocator(Device device) {
    // Never destroyed: storages may outlive static destruction.
    static auto* cpu = new std::shared_ptr<Allocator>(new Allocator(kCpu));
    if (device.type == DeviceType::cpu) return *cpu;
    static std::mutex mutex;
    static auto* cuda_devices = new std::map<int, std::shared_ptr<Allocator>>;
    std::lock_guard lock(mutex);
    auto it = cuda_devices->find(device.index);
    if (it == cuda_devices->end()) {
        cuda::check_usable(device);
        it = cuda_devices->emplace(device.index, new Allocator(device)).first;
    }
    return it->second;
}

thread_local std::shared_ptr<Allocator> active_pool;

class CachedStorage : public Storage {
public:
    CachedStorage(std::shared_ptr<Allocator> from, void* block, int64_t front, int64_t bytes)
        : Storage(static_cast<std::byte*>(block) + front, bytes, from->device()),
          from_(std::move(from)),
          block_(block),
          front_(front) {}

    ~CachedStorage() override {
        derived.reset();
        if (front_ > 0) check_sentinels();
        from_->give(block_);
    }

private:
    void check_sentinels() const {
        auto broken = [this](const std::byte* p) {
            std::array<std::byte, kSentinel> host;
            if (device().type == DeviceType::cuda) {
                cuda::copy_rows({const_cast<std::byte*>(p), kSentinel, device()},
                                {host.data(), kSentinel, kCpu}, kSentinel, 1);
            } else {
                std::copy(p, p + kSentinel, host.begin());
            }
            return std::any_of(host.begin(), host.end(),
                               [](std::byte b) { return b != std::byte{kSentinelByte}; });
        };
        if (broken(data() - kSentinel) || broken(data() + bytes())) guard_violations += 1;
    }

    std::shared_ptr<Allocator> from_;
    void* block_;
    int64_t front_;
};

}  // namespace

StoragePtr allocate(int64_t bytes, Device device) {
    check(bytes >= 0, "a block of ", bytes, " bytes was asked for");
    bool guarded = guards > 0;
    int64_t front = guarded ? kSentinel : 0;
    std::shared_ptr<Allocator> from =
        active_pool != nullptr && active_pool->device() == device ? active_pool : allocator(device);
    void* block = from->take(rounded_size(bytes + 2 * front));
    auto storage = std::make_shared<CachedStorage>(std::move(from), block, front, bytes);
    if (guarded) {
        auto fill = [&](std::byte* to, int value, int64_t count) {
            if (device.type == DeviceType::cuda) return cuda::fill(device.index, to, value, count);
            std::memset(to, value, static_cast<size_t>(count));
        };
        fill(storage->data() - front, kSentinelByte, front);
        fill(storage->data(), 0xff, bytes);
        fill(storage->data() + bytes, kSentinelByte, front);
    }
    return storage;
}

MemoryPool::MemoryPool(Device device)
    : allocator_(std::make_shared<Allocator>(device, allocator(device).get())) {}

MemoryPool::Use::Use(const MemoryPool& pool) : before_(std::exchange(active_pool, pool.allocator_)) {}
MemoryPool::Use::~Use() { active_pool = before_; }

MemoryStatistics memory_statistics(Device device) { return allocator(device)->statistics(); }
void reset_peak(Device device) { allocator(device)->reset_peak(); }
void release_cached(Device device) { allocator(device)->release(); }
void set_cache_limit(Device device, int64_t bytes) { allocator(device)->set_limit(bytes); }
void set_capacity(Device device, int64_t bytes) { allocator(device)->set_capacity(bytes); }
int64_t available_memory(Device device) { return allocator(device)->available(); }

int64_t peak_resident_bytes() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss * 1024;
}

MemoryGuard::MemoryGuard() { guards += 1; }
MemoryGuard::~MemoryGuard() { guards -= 1; }
int64_t MemoryGuard::violations() { return guard_violations; }

}  // namespace sana
