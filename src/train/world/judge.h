// What a video shows, measured from its pixels alone in the vocabulary of the world, and whether that is what was asked.
#pragma once

#include <optional>

#include "train/world/caption.h"

namespace sana::world {

struct Seen {
    struct Thing {
        Shape shape{};
        Color color{};
        Size size{};
        Motion motion{};
        double radius = 0;  // median, in units of the smaller side
        double match = 0;   // 0 .. 1: how well the shape covers what is seen
    };
    std::vector<Thing> things;  // the largest first; as many as most frames show
    Color background{};
    Texture pattern{};
    Motion camera{};
};

// frames [T,H,W,3] uint8.
//   colour      the nearest hue of the palette; grey is white or black by its lightness
//   background  the most frequent colour; things are the connected rest
//   shape       the best overlap with each shape at each angle, summed over frames
//   size        the radius of the shape of equal area
//   motion      from the path, the radius and the angle of a thing; of the camera: least-squares shift and zoom of the
//               background between frames
Seen look_at(const Tensor& frames);

// One question an attribute; without a value: it was not asked.
struct Verdict {
    std::optional<bool> color, shape, size, motion, count, background;
    bool all() const;  // everything that was asked is right
};
constexpr std::array<std::string_view, 6> kAttributes = {"color",  "shape", "size",
                                                         "motion", "count", "background"};
std::array<std::optional<bool>, 6> values(const Verdict& verdict);  // in that order

// Asked is what the caption states. Background is right when its colour and, where stated, its pattern are.
Verdict judge(const Seen& seen, const Scene& truth, const Stated& stated);

// Answers added up.
struct Tally {
    std::array<int64_t, 6> asked{}, right{};
    int64_t count = 0, all_right = 0;
    void add(const Verdict& verdict);
    double share(size_t attribute) const;  // of those asked; 1 when none was
    double share_all() const {
        return count == 0 ? 1 : static_cast<double>(all_right) / static_cast<double>(count);
    }
};

// A video that was asked for.
struct Asked {
    Scene scene;
    Caption caption;
    Seen seen;
};
Tally tally(const std::vector<Asked>& videos);
// What the same videos score when each is asked for what up to 50 others show: the level of chance.
Tally tally_shuffled(const std::vector<Asked>& videos);

// Peak signal to noise ratio of two pictures of equal shape, uint8, in dB; equal pictures give 100.
double psnr(const Tensor& a, const Tensor& b);

}  // namespace sana::world
