// Sizes that a model works at: aspect-ratio bins, free sizes, frame counts.
// Source of the bins: diffusers SanaVideoPipeline (ASPECT_RATIO_480_BIN, ASPECT_RATIO_720_BIN).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace sana {

struct Size {
    int64_t width = 0, height = 0;
    bool operator==(const Size&) const = default;
};

struct Bin {
    double ratio;  // nominal height / width
    Size size;
};

// The bins of a transformer's sample_size (30: 480p, 22: 720p); none for others, which work at free sizes.
const std::vector<Bin>* resolution_bins(int64_t sample_size);

// The bin whose ratio is nearest to height / width; the first one on a tie.
Size nearest_bin(const std::vector<Bin>& bins, Size wanted);

// What a model needs of a size and a length.
struct SizeRules {
    int64_t multiple = 16;         // of width and height: the VAE's spatial factor times the patch
    int64_t temporal = 4;          // the VAE's temporal factor; frames are 1 + k * temporal * temporal_patch
    int64_t largest_side = 16384;  // from the positions of the transformer
    int64_t most_frames = 1 << 20;
};

// Frames rounded down to what the VAE can do, at least 1.
int64_t valid_frames(const SizeRules& rules, int64_t frames);

// Throws InputError when a free size is not a multiple or out of range; the message names the nearest sizes that work.
// what: begins the message.
void check_size(const SizeRules& rules, Size size, const std::string& what = {});
// The same of a clip, whose frames are not rounded.
void check_clip(const SizeRules& rules, Size size, int64_t frames, const std::string& what = {});

}  // namespace sana
