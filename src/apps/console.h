// What a person or a program sees of a run: a live line on a terminal, plain lines elsewhere, JSON lines on request.
#pragma once

#include <chrono>
#include <string>

#include "apps/commands.h"
#include "pipeline/request.h"

namespace sana::apps {

class Console {
public:
    explicit Console(const Common& common);
    ~Console();

    // Progress, notes and cancellation (Ctrl-C) of a run.
    Hooks hooks();

    void note(const std::string& text);
    // A fact for programs: {"event": name, ...}; fields: the inside of a JSON object.
    void event(const std::string& name, const std::string& fields);
    void line(const std::string& text);  // to standard output, unless JSON was asked for
    void live(const std::string& text);  // a line that the next one replaces; on a terminal alone

private:
    void progress(const Progress& p);
    void clear_line();

    const Common& common_;
    bool terminal_;
    Phase phase_ = Phase::load;
    bool open_ = false;  // a live line stands on the terminal
    std::chrono::steady_clock::time_point phase_start_, last_shown_;
};

std::string json_string(const std::string& text);  // as a JSON string
std::string duration_text(double seconds);         // 4.2 s, 3 min 05 s, 2 h 10 min
std::string bytes_text(double bytes);              // 512 MiB, 8.2 GiB
// The peak of a device other than the CPU, to stand behind the host's: ", 31 GiB on cuda:0"; empty for the CPU.
std::string device_memory_text(Device device);
std::string device_memory_fields(Device device);  // the same for event()

// Ctrl-C: the first one asks for a clean stop, the second ends the program at once.
void catch_interrupt();
bool interrupted();

}  // namespace sana::apps
