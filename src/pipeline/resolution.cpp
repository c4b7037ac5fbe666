#include "pipeline/resolution.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"

namespace sana {

const std::vector<Bin>* resolution_bins(int64_t sample_size) {
    static const std::vector<Bin> bins480 = {
        {0.5, {896, 448}},  {0.57, {832, 480}}, {0.68, {768, 528}}, {0.78, {720, 560}},
        {1.0, {624, 624}},  {1.13, {592, 672}}, {1.29, {560, 720}}, {1.46, {528, 768}},
        {1.67, {496, 816}}, {1.75, {480, 832}}, {2.0, {448, 896}},
    };
    static const std::vector<Bin> bins720 = {
        {0.5, {1344, 672}},  {0.57, {1280, 704}}, {0.68, {1152, 800}}, {0.78, {1088, 832}},
        {1.0, {960, 960}},   {1.13, {896, 1024}}, {1.29, {832, 1088}}, {1.46, {800, 1152}},
        {1.67, {736, 1248}}, {1.75, {704, 1280}}, {2.0, {672, 1344}},
    };
    if (sample_size == 30) return &bins480;
    if (sample_size == 22) return &bins720;
    return nullptr;
}

Size nearest_bin(const std::vector<Bin>& bins, Size wanted) {
    double ratio = static_cast<double>(wanted.height) / static_cast<double>(wanted.width);
    auto distance = [&](const Bin& bin) { return std::abs(bin.ratio - ratio); };
    return std::min_element(bins.begin(), bins.end(),
                            [&](const Bin& a, const Bin& b) { return distance(a) < distance(b); })
        ->size;
}

int64_t valid_frames(const SizeRules& rules, int64_t frames) {
    return std::max<int64_t>(1, (frames - 1) / rules.temporal * rules.temporal + 1);
}

void check_size(const SizeRules& rules, Size size, const std::string& what) {
    auto check_side = [&](const char* name, int64_t value) {
        int64_t m = rules.multiple;
        check_input(value >= m && value <= rules.largest_side, what, name, ' ', value,
                    " is out of range; this model takes ", m, " .. ", rules.largest_side);
        int64_t low = value / m * m, high = std::min(low + m, rules.largest_side);
        check_input(value % m == 0, what, name, ' ', value, " is not a multiple of ", m,
                    ", which this model needs; use ", low, " or ", high);
    };
    check_side("width", size.width);
    check_side("height", size.height);
}

void check_clip(const SizeRules& rules, Size size, int64_t frames, const std::string& what) {
    check_size(rules, size, what);
    check_input(frames >= 1 && frames <= rules.most_frames, what, frames,
                " frames are out of range; this model takes 1 .. ", rules.most_frames);
    int64_t low = valid_frames(rules, frames), high = low + rules.temporal;
    check_input(low == frames, what, frames, " frames are not 1 + ", rules.temporal,
                "k, which this model needs; use ", low, " or ", high);
}

}  // namespace sana
