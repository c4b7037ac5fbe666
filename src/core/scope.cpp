#include "core/scope.h"

#include <chrono>
#include <vector>

namespace sana {

namespace {

thread_local std::vector<std::string> names;
thread_local Capture* active_capture = nullptr;
thread_local ScopeTimes* active_times = nullptr;

}  // namespace

Scope::Scope(std::string_view name) {
    names.emplace_back(name);
    if (active_times != nullptr) start_ = active_times->now();
}

Scope::Scope(std::string_view name, int64_t index) : Scope(join(name, '.', index)) {}

Scope::~Scope() {
    if (active_times != nullptr && start_ > 0) {
        ScopeTimes::Entry& entry = active_times->entries[path()];
        entry.calls += 1;
        entry.seconds += active_times->now() - start_;
    }
    names.pop_back();
}

std::string Scope::path() {
    std::string out;
    for (const std::string& name : names) {
        if (!out.empty()) out += " > ";
        out += name;
    }
    return out;
}

void capture(std::string_view name, const Tensor& value) {
    if (active_capture == nullptr) return;
    std::string path = Scope::path();
    std::string full = path.empty() ? std::string(name) : join(path, " > ", name);
    for (Capture* c = active_capture; c != nullptr; c = c->previous_) {
        if (glob_match(c->glob_, full)) c->values[full] = value;
    }
}

Capture::Capture(std::string glob) : glob_(std::move(glob)), previous_(active_capture) {
    active_capture = this;
}

Capture::~Capture() { active_capture = previous_; }

ScopeTimes::ScopeTimes(Device device) : device_(device), previous_(active_times) { active_times = this; }

double ScopeTimes::now() const {
    using namespace std::chrono;
    synchronise(device_);
    return duration<double>(steady_clock::now().time_since_epoch()).count();
}

ScopeTimes::~ScopeTimes() { active_times = previous_; }

bool glob_match(std::string_view pattern, std::string_view text) {
    size_t p = 0, t = 0, star = std::string_view::npos, mark = 0;
    while (t < text.size()) {
        if (p < pattern.size() && pattern[p] == '*') {
            star = p++;
            mark = t;
        } else if (p < pattern.size() && pattern[p] == text[t]) {
            ++p;
            ++t;
        } else if (star != std::string_view::npos) {
            p = star + 1;
            t = ++mark;
        } else {
            return false;
        }
    }
    while (p < pattern.size() && pattern[p] == '*') ++p;
    return p == pattern.size();
}

}  // namespace sana
