#include "core/random.h"
#include "train/world/world.h"

namespace sana::world {

namespace {

constexpr std::array<std::string_view, kShapes> kShapeNames = {"circle", "square", "triangle", "star",
                                                               "ring",   "heart",  "cross",    "crescent"};
constexpr std::array<std::string_view, kColors> kColorNames = {"red",  "orange", "yellow", "green", "cyan",
                                                               "blue", "purple", "pink",   "white", "black"};
constexpr std::array<std::string_view, kSizes> kSizeNames = {"small", "medium", "large"};
constexpr std::array<std::string_view, kTextures> kTextureNames = {"plain", "striped", "dotted", "checkered",
                                                                   "gradient"};
constexpr std::array<std::string_view, kMotions> kMotionNames = {
    "still",  "left",   "right", "up",   "down",   "up-left",  "up-right",  "down-left", "down-right",
    "circle", "bounce", "spin",  "grow", "shrink", "pan-left", "pan-right", "zoom-in",   "zoom-out"};
constexpr std::array<std::string_view, kSpeeds> kSpeedNames = {"slow", "normal", "fast"};
constexpr std::array<std::string_view, kLights> kLightNames = {"none", "left", "right", "top", "bottom"};

// Hues at least 23 degrees apart, so that they stay apart under light and compression.
constexpr std::array<Rgb, kColors> kPaint = {{{220, 40, 40},
                                              {245, 130, 25},
                                              {245, 215, 45},
                                              {40, 170, 70},
                                              {45, 205, 220},
                                              {40, 80, 220},
                                              {135, 60, 200},
                                              {250, 120, 185},
                                              {245, 245, 245},
                                              {25, 25, 28}}};

}  // namespace

std::string_view name_of(Shape v) { return kShapeNames[static_cast<size_t>(v)]; }
std::string_view name_of(Color v) { return kColorNames[static_cast<size_t>(v)]; }
std::string_view name_of(Size v) { return kSizeNames[static_cast<size_t>(v)]; }
std::string_view name_of(Texture v) { return kTextureNames[static_cast<size_t>(v)]; }
std::string_view name_of(Motion v) { return kMotionNames[static_cast<size_t>(v)]; }
std::string_view name_of(Speed v) { return kSpeedNames[static_cast<size_t>(v)]; }
std::string_view name_of(Light v) { return kLightNames[static_cast<size_t>(v)]; }

bool is_camera(Motion motion) { return motion >= Motion::pan_left; }
bool is_straight(Motion motion) { return motion >= Motion::left && motion <= Motion::down_right; }

std::array<int, 2> direction(Motion motion) {
    switch (motion) {
        case Motion::left: return {-1, 0};
        case Motion::right: return {1, 0};
        case Motion::up: return {0, -1};
        case Motion::down: return {0, 1};
        case Motion::up_left: return {-1, -1};
        case Motion::up_right: return {1, -1};
        case Motion::down_left: return {-1, 1};
        case Motion::down_right: return {1, 1};
        default: return {0, 0};
    }
}

Rgb paint(Color color) { return kPaint[static_cast<size_t>(color)]; }

Rgb shade(Color color) {
    if (color == Color::black) return {66, 66, 70};
    if (color == Color::white) return {196, 196, 196};
    Rgb tone = paint(color);
    for (double& v : tone) v *= 0.62;
    return tone;
}

double Draws::unit() {
    if (left_ == 0) {
        numbers_ = philox(
            {block_++, 0x776f726cu, static_cast<uint32_t>(stream_), static_cast<uint32_t>(stream_ >> 32)},
            {static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32)});
        left_ = 4;
    }
    return static_cast<double>(numbers_[static_cast<size_t>(--left_)]) * 0x1p-32;
}

uint64_t hash_of(std::string_view text) {
    uint64_t h = 0xcbf29ce484222325u;
    for (unsigned char c : text) h = (h ^ c) * 0x100000001b3u;
    h ^= h >> 33;  // the low bits of FNV-1a of short texts are not spread well enough for a modulus
    h *= 0xff51afd7ed558ccdu;
    return h ^ (h >> 33);
}

bool held_out(Shape shape, Color color, Motion motion) {
    return hash_of(join(name_of(shape), ' ', name_of(color), ' ', name_of(motion))) % 10 == 0;
}

}  // namespace sana::world
