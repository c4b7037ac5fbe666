// A caching allocator per device: freed blocks are kept and reused, so that a loop over equal shapes allocates once.
// Blocks are rounded to 512 B below 1 MiB and to 2 MiB above; a cached block serves a request when it is at most
// min(2 * size, size + 4 MiB) large (best fit). Above the cache limit the least recently freed blocks are released.
#pragma once

#include <cstdint>
#include <memory>

#include "core/check.h"
#include "core/device.h"

namespace sana {

// A block of memory. Its deleter returns it to where it came from (the cache, a file mapping, a library).
class Storage {
public:
    Storage(void* data, int64_t bytes, Device device) : data_(data), bytes_(bytes), device_(device) {}
    virtual ~Storage() = default;
    Storage(const Storage&) = delete;
    Storage& operator=(const Storage&) = delete;

    std::byte* data() const { return static_cast<std::byte*>(data_); }
    int64_t bytes() const { return bytes_; }
    Device device() const { return device_; }

    // Something a backend derived from the block's constant contents (packed weights). Freed with the block.
    std::shared_ptr<void> derived;

private:
    void* data_;
    int64_t bytes_;
    Device device_;
};

using StoragePtr = std::shared_ptr<Storage>;

// There is not enough memory on a device, or no more may be taken (set_capacity).
class OutOfMemory : public Error {
public:
    using Error::Error;
};

// Uninitialised memory, aligned to 64 bytes. Throws OutOfMemory when there is none, naming the size and what is in use.
StoragePtr allocate(int64_t bytes, Device device);

class Allocator;  // of a device or a pool

// Memory with a cache of its own: blocks that are freed stay in it, for later requests made in it. What a recorded graph
// of device work uses lives in one, so that its addresses stay its own between two launches. Its blocks come from the
// device's cache and count there as active; they go back when the pool and the last storage of it are gone.
class MemoryPool {
public:
    explicit MemoryPool(Device device);

    // While alive, this thread's requests for the pool's device are served by the pool.
    class Use {
    public:
        explicit Use(const MemoryPool& pool);
        ~Use();
        Use(const Use&) = delete;
        Use& operator=(const Use&) = delete;

    private:
        std::shared_ptr<Allocator> before_;
    };

private:
    std::shared_ptr<Allocator> allocator_;
};

struct MemoryStatistics {
    int64_t active = 0;              // bytes held by live storages
    int64_t cached = 0;              // bytes kept for reuse
    int64_t peak = 0;                // largest active since start or reset_peak()
    int64_t peak_taken = 0;          // largest active + cached since then: what the system had to give
    int64_t system_allocations = 0;  // how often the system was asked
};

MemoryStatistics memory_statistics(Device device);
void reset_peak(Device device);
void release_cached(Device device);                  // gives all cached blocks back
void set_cache_limit(Device device, int64_t bytes);  // default: unlimited
void set_capacity(Device device, int64_t bytes);     // of live and cached blocks together; default: unlimited

// Largest resident set of this process so far, in bytes (what `time -v` reports).
int64_t peak_resident_bytes();

// While alive: every new block is filled with NaN bytes (0xff) and has 1 KiB of sentinel on both sides, which are
// checked when the block is freed; a write outside a block is reported by violations(). For tests.
class MemoryGuard {
public:
    MemoryGuard();
    ~MemoryGuard();
    static int64_t violations();
};

}  // namespace sana
