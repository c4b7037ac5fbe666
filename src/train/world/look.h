// The parts of looking at a video: regions of colour and their edges, the shape that covers a region, the motion of the
// background.
#pragma once

#include "train/world/world.h"

namespace sana::world {

// The palette's colour that a pixel shows.
Color color_at(const uint8_t* rgb);

// A connected region of one frame that is not background.
struct Region {
    Color color{};
    std::vector<int32_t> pixels;  // row * width + column
    double x = 0, y = 0;          // its centre of mass, pixels
    double solidity = 0;          // what it fills of its convex hull
    void measure(int64_t width);  // both, from the pixels
};

// Regions of at least min_area pixels, the largest first. labels: the colour of every pixel.
std::vector<Region> regions(const std::vector<uint8_t>& labels, int64_t height, int64_t width,
                            Color background, int64_t min_area);

// Moves the edges of the regions of a frame to where it is half thing, half what is behind, by the tones on both sides. By
// the nearest colour alone a thing begins where it tints the background, which a blurred edge does far outside.
void sharpen(std::vector<Region>& regions, const uint8_t* rgb, const std::vector<uint8_t>& labels,
             int64_t height, int64_t width, Color background);

// Shapes are compared as drawn and with softer edges: blurred by softness * kSoftnessStep radii and cut at a half. A third
// step would make a pentagon of a star, and blobs would be taken for stars.
constexpr int kSoftness = 3;
constexpr double kSoftnessStep = 0.06;

// How well a shape covers a region, at an angle, when both have the same area and centre of mass: intersection over
// union.
double overlap(const Region& region, int64_t width, Shape shape, int softness, double angle);

// How alike the solidities of a region and a shape are, smaller to larger: a star that is drawn askew fills little of its
// hull all the same.
double likeness(const Region& region, Shape shape, int softness);

// The centre that a shape with this centre of mass, area and angle has; radius from the area.
Pose pose_of(const Region& region, Shape shape, int softness, double angle);

// Movement and pattern of what is behind the things.
struct Backdrop {
    Motion camera{};
    Texture pattern{};
};
Backdrop look_at_backdrop(const Tensor& frames, const std::vector<std::vector<uint8_t>>& labels,
                          Color background);

}  // namespace sana::world
