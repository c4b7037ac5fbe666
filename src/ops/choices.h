// What was measured once and is remembered: which of several equivalent kernels is fastest on this machine. A small text
// file of keys and values a device; losing it costs the measuring again, never a result.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>

namespace sana {

class Choices {
public:
    // path "": in memory only. A file that is missing is empty; one that is damaged or of another format is ignored with
    // a note on standard error and replaced by the next put().
    explicit Choices(std::string path);

    std::optional<std::string> find(const std::string& key) const;
    // Remembers, and writes the file in one step (a temporary that is renamed), together with what other processes have
    // put there meanwhile. A file that cannot be written is noted once; the choice then lasts as long as the process.
    // key and value: printable, without tabs and line breaks.
    void put(const std::string& key, const std::string& value);

    const std::string& path() const { return path_; }

private:
    using Map = std::map<std::string, std::string>;
    static std::optional<Map> read(const std::string& path);

    std::string path_;
    mutable std::mutex mutex_;
    Map known_;
    bool noted_ = false;
};

// Where such files live: SANA_KERNEL_CACHE (a folder), else sana/ in XDG_CACHE_HOME, else .cache/sana in HOME. None: when
// SANA_KERNEL_CACHE is "memory", or no home folder is known.
std::optional<std::string> choices_folder();
// False when SANA_KERNEL_CACHE is "off": nothing is measured, every kernel is a library's or our first guess.
bool choices_wanted();

}  // namespace sana
