// Small text files: reading with a bound, the JSON that Python writes, atomic writing.
#pragma once

#include <cstdint>
#include <string>

#include "io/atomic_file.h"

namespace sana {

bool file_exists(const std::string& path);
bool is_folder(const std::string& path);
std::string parent_folder(const std::string& path);  // "." when there is none
void make_folders(const std::string& path);          // as mkdir -p

// The whole file; InputError when it is missing, a folder, unreadable or longer than max_bytes.
std::string read_text_file(const std::string& path, int64_t max_bytes = int64_t{64} << 20);

// A JSON file as strict JSON text: NaN, Infinity and -Infinity standing as values, which Python's json module writes
// (scheduler_config.json has one), become null, a byte-order mark is dropped. InputError naming file, line and column
// when the rest is not JSON or is nested deeper than 200.
std::string read_json_text(const std::string& path);

// Writes the file in one step (AtomicFile).
void write_text_file(const std::string& path, const std::string& text);

}  // namespace sana
