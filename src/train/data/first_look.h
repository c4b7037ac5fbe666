// What a media file holds, found by decoding all of it, and remembered until the file changes.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "core/tensor.h"

namespace sana {

struct MediaFacts {
    int64_t frames = 0, height = 0, width = 0;
    double seconds = 0;     // from the first frame to the last
    bool variable = false;  // frames are not evenly spaced
    std::string hash;       // SHA-256 of the file
    std::string error;      // why it cannot be used
};

bool is_picture_name(const std::string& path);
bool is_video_name(const std::string& path);

class FirstLook {
public:
    // index: a file that keeps the facts; one that cannot be read is made anew.
    explicit FirstLook(std::string index);
    MediaFacts look(const std::string& path);  // may be called from several threads
    void save() const;                         // InputError when the index cannot be written

private:
    std::string index_;
    std::map<std::string, MediaFacts> known_;  // by path, size and time of the last change
    mutable std::mutex mutex_;
};

}  // namespace sana
