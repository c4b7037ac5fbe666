#include "apps/console.h"

#include <unistd.h>

#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/memory.h"

namespace sana::apps {

namespace {

std::atomic<bool> stop = false;
static_assert(std::atomic<bool>::is_always_lock_free);

void on_interrupt(int) {
    if (stop.exchange(true)) _exit(130);
}

const char* words(Phase phase) {
    switch (phase) {
        case Phase::load: return "loading weights";
        case Phase::text: return "reading the prompt";
        case Phase::image: return "encoding the picture";
        case Phase::denoise: return "denoising";
        case Phase::decode: return "decoding";
    }
    return "";
}

double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

std::string json_string(const std::string& text) {
    return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string duration_text(double seconds) {
    char out[48];
    if (seconds < 60) {
        std::snprintf(out, sizeof out, "%.1f s", seconds);
    } else if (seconds < 3600) {
        std::snprintf(out, sizeof out, "%d min %02d s", static_cast<int>(seconds) / 60,
                      static_cast<int>(seconds) % 60);
    } else {
        std::snprintf(out, sizeof out, "%d h %02d min", static_cast<int>(seconds / 3600),
                      static_cast<int>(seconds) / 60 % 60);
    }
    return out;
}

std::string bytes_text(double bytes) {
    const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int unit = 0;
    while (bytes >= 1024 && unit < 4) {
        bytes /= 1024;
        ++unit;
    }
    char out[32];
    std::snprintf(out, sizeof out, bytes < 10 && unit > 0 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
    return out;
}

std::string device_memory_text(Device device) {
    if (device == kCpu) return "";
    return join(", ", bytes_text(static_cast<double>(memory_statistics(device).peak)), " on ", device);
}

std::string device_memory_fields(Device device) {
    if (device == kCpu) return "";
    return join(", \"device\": \"", device, "\", \"device_peak_bytes\": ", memory_statistics(device).peak);
}

void catch_interrupt() {
    stop = false;
    std::signal(SIGINT, on_interrupt);
    std::signal(SIGTERM, on_interrupt);
    std::signal(SIGXFSZ, SIG_IGN);  // a file over the limit becomes an error of write()
    std::signal(SIGPIPE, SIG_IGN);
}

bool interrupted() { return stop; }

Console::Console(const Common& common) : common_(common), terminal_(isatty(STDERR_FILENO) != 0) {
    phase_start_ = last_shown_ = std::chrono::steady_clock::now();
}

Console::~Console() { clear_line(); }

void Console::clear_line() {
    if (open_) std::fputs("\r\033[K", stderr);
    open_ = false;
}

void Console::note(const std::string& text) {
    if (common_.json) {
        event("note", "\"text\": " + json_string(text));
    } else if (!common_.quiet) {
        clear_line();
        std::fprintf(stderr, "note: %s\n", text.c_str());
    }
}

void Console::event(const std::string& name, const std::string& fields) {
    if (!common_.json) return;
    std::printf("{\"event\": \"%s\"%s%s}\n", name.c_str(), fields.empty() ? "" : ", ", fields.c_str());
    std::fflush(stdout);
}

void Console::line(const std::string& text) {
    clear_line();
    if (!common_.json) std::printf("%s\n", text.c_str());
    std::fflush(stdout);
}

void Console::live(const std::string& text) {
    if (common_.json || common_.quiet || !terminal_) return;
    std::fprintf(stderr, "\r\033[K%s", text.c_str());
    std::fflush(stderr);
    open_ = true;
}

void Console::progress(const Progress& p) {
    if (p.phase != phase_ || p.done == 0) {
        phase_ = p.phase;
        phase_start_ = std::chrono::steady_clock::now();
        last_shown_ = {};
    }
    double elapsed = seconds_since(phase_start_);
    double left =
        p.done > 0 ? elapsed / static_cast<double>(p.done) * static_cast<double>(p.total - p.done) : -1;
    if (common_.json) {
        event("progress", join("\"phase\": \"", name_of(p.phase), "\", \"done\": ", p.done,
                               ", \"total\": ", p.total, ", \"elapsed_s\": ", elapsed,
                               ", \"left_s\": ", left < 0 ? std::string("null") : join(left)));
        return;
    }
    if (common_.quiet) return;
    bool last = p.done == p.total;
    bool counted = p.phase == Phase::denoise || p.phase == Phase::decode;
    if (!terminal_) {
        // Not a live line: the ends of the long phases only.
        if (counted && last)
            std::fprintf(stderr, "%s: %lld of %lld, %s\n", words(p.phase), static_cast<long long>(p.done),
                         static_cast<long long>(p.total), duration_text(elapsed).c_str());
        return;
    }
    std::string text = words(p.phase);
    if (counted) {
        constexpr int kWidth = 24;
        int filled = p.total > 0 ? static_cast<int>(kWidth * p.done / p.total) : 0;
        text += "  " + std::string(static_cast<size_t>(filled), '#') +
                std::string(static_cast<size_t>(kWidth - filled), '.');
        text += join("  ", p.done, '/', p.total, "  ", duration_text(elapsed));
        if (left >= 0 && !last) text += ", " + duration_text(left) + " left";
    }
    std::fprintf(stderr, "\r\033[K%s", text.c_str());
    open_ = true;
    if (last && counted) {
        std::fputc('\n', stderr);
        open_ = false;
    }
    std::fflush(stderr);
}

Hooks Console::hooks() {
    Hooks hooks;
    hooks.progress = [this](const Progress& p) { progress(p); };
    hooks.note = [this](const std::string& text) { note(text); };
    hooks.cancelled = [] { return interrupted(); };
    return hooks;
}

}  // namespace sana::apps
