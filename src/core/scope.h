// A named region of the program. One name serves error messages, timing and the capture of intermediate values.
// Scopes nest per thread: Scope a("dit"); Scope b("blocks", 3);  ->  path "dit > blocks.3".
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "core/tensor.h"

namespace sana {

class Scope {
public:
    explicit Scope(std::string_view name);
    Scope(std::string_view name, int64_t index);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

    static std::string path();  // of the calling thread, "" outside all scopes

private:
    double start_ = 0;
};

// Offers an intermediate value to the active Capture (none: no cost but a thread-local read).
void capture(std::string_view name, const Tensor& value);

// While alive on this thread, keeps (shares) every captured value whose "path > name" matches the glob
// (* = any run of characters), in order of arrival.
class Capture {
public:
    explicit Capture(std::string glob);
    ~Capture();
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;

    TensorMap values;

private:
    friend void capture(std::string_view, const Tensor&);
    std::string glob_;
    Capture* previous_;
};

// While alive on this thread, sums wall time by scope path; entries are inclusive of nested scopes. With a device that
// works while the host goes on, every scope waits for it at both ends, so that what a scope queued counts as its own.
class ScopeTimes {
public:
    struct Entry {
        int64_t calls = 0;
        double seconds = 0;
    };
    explicit ScopeTimes(Device device = kCpu);
    ~ScopeTimes();
    ScopeTimes(const ScopeTimes&) = delete;
    ScopeTimes& operator=(const ScopeTimes&) = delete;

    std::map<std::string, Entry> entries;

private:
    friend class Scope;
    double now() const;
    Device device_;
    ScopeTimes* previous_;
};

// Whether text matches a pattern in which * stands for any run of characters.
bool glob_match(std::string_view pattern, std::string_view text);

}  // namespace sana
