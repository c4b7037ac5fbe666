// The procedural world: short scenes of coloured shapes that move, with the truth about each of them. A scene is a
// function of (seed, index) and the clip's form; nothing is stored. What it can hold is the vocabulary below.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "train/source.h"

namespace sana::world {

enum class Shape { circle, square, triangle, star, ring, heart, cross, crescent };
enum class Color { red, orange, yellow, green, cyan, blue, purple, pink, white, black };
enum class Size { small, medium, large };
enum class Texture { plain, striped, dotted, checkered, gradient };  // of objects and of backgrounds
enum class Motion {
    still,
    left,
    right,
    up,
    down,
    up_left,
    up_right,
    down_left,
    down_right,  // straight
    orbit,
    bounce,
    spin,
    grow,
    shrink,
    pan_left,
    pan_right,
    zoom_in,
    zoom_out,  // of the camera, over objects that stay where they are
};
enum class Speed { slow, normal, fast };
enum class Light { none, left, right, top, bottom };  // where the brighter side is

constexpr int kShapes = 8, kColors = 10, kSizes = 3, kTextures = 5, kMotions = 18, kSpeeds = 3, kLights = 5;

std::string_view name_of(Shape shape);
std::string_view name_of(Color color);
std::string_view name_of(Size size);
std::string_view name_of(Texture texture);
std::string_view name_of(Motion motion);
std::string_view name_of(Speed speed);
std::string_view name_of(Light light);

bool is_camera(Motion motion);
bool is_straight(Motion motion);  // left .. down_right
// Unit steps of a straight motion, x to the right, y downwards.
std::array<int, 2> direction(Motion motion);

using Rgb = std::array<double, 3>;  // 0 .. 255
Rgb paint(Color color);             // its main tone
Rgb shade(Color color);             // the darker (black: lighter) second tone of textures, of the same hue

// Lengths are in units of the picture's smaller side; (0, 0) is its centre, y points down.
struct Pose {
    double x = 0, y = 0;
    double radius = 0;  // of the circle that the shape fills
    double angle = 0;   // radians, clockwise on the screen
};

struct Object {
    Shape shape{};
    Color color{};
    Size size{};
    Texture texture{};
    Motion motion{};
    Speed speed{};
    Pose start;
    double amount = 0;  // of the whole clip: distance, turns (orbit, spin), hops, or the ratio of radii
    double extent = 0;  // radius of an orbit, height of a bounce
    double phase = 0;   // where an orbit begins, radians
    int turning = 1;    // direction of orbit and spin
    double fine = 0;    // place of the texture
    Pose pose(double progress) const;  // progress 0 .. 1
};

struct Camera {
    Motion motion = Motion::still;
    Speed speed = Speed::normal;
    double amount = 0;  // distance of a pan, ratio of a zoom
};

// Where the camera stands: a point of the scene is seen at ((x + shift) zoom, y zoom).
struct View {
    double shift = 0, zoom = 1;
};
View view(const Camera& camera, double progress);
Pose seen(const Pose& pose, const View& view);

struct Scene {
    uint64_t seed = 0;
    int64_t index = 0;
    double aspect = 1;            // width / height
    double seconds = 2;           // 0: a picture
    std::vector<Object> objects;  // one or two
    Color background{};
    Texture pattern{};
    double pattern_size = 0.2, pattern_place = 0;
    bool pattern_upright = true;  // stripes: side by side
    Light light{};
    double light_strength = 0;
    Camera camera;
};

// Which scenes: a tenth of all combinations of shape, colour and motion, chosen by a hash of the three, is kept for
// evaluation. Training scenes have none of them, held-out scenes have one in their first object.
enum class Split { training, held_out };
bool held_out(Shape shape, Color color, Motion motion);

Scene make_scene(uint64_t seed, int64_t index, const Bucket& bucket, double fps, Split split);

// [T,H,W,3] uint8, edges smoothed by coverage. Any size; frame t of T shows progress t / (T - 1).
Tensor render(const Scene& scene, const Bucket& bucket);

// The truth as JSON: every choice, and of every object its place in each frame in pixels; the captions beside it.
std::string truth_json(const Scene& scene, const Bucket& bucket, double fps,
                       const std::vector<std::string>& captions = {});

// What a shape covers: signed distance to its edge in units of its radius, negative inside; x, y in the same units.
double distance_to(Shape shape, double x, double y);

// Numbers that depend on (seed, stream) alone, the same everywhere.
class Draws {
public:
    Draws(uint64_t seed, uint64_t stream) : seed_(seed), stream_(stream) {}
    double unit();  // [0, 1)
    double between(double low, double high) { return low + (high - low) * unit(); }
    int below(int n) { return static_cast<int>(unit() * n); }
    bool chance(double probability) { return unit() < probability; }
    template <class T>
    const T& of(const std::vector<T>& list) {
        return list[static_cast<size_t>(below(static_cast<int>(list.size())))];
    }

private:
    uint64_t seed_, stream_;
    uint32_t block_ = 0;
    int left_ = 0;
    std::array<uint32_t, 4> numbers_{};
};

uint64_t hash_of(std::string_view text);  // FNV-1a, mixed

}  // namespace sana::world
