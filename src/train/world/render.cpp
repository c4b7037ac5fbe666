// Pixels of a scene. Shapes are signed distances, so that an edge pixel gets the share of the shape that covers it;
// colours are mixed in sRGB, as drawing programs do.
#include <algorithm>
#include <cmath>

#include "train/world/world.h"

namespace sana::world {

namespace {

constexpr double kPi = 3.14159265358979323846;

double length(double x, double y) { return std::sqrt(x * x + y * y); }

// Signed distance to a polygon (after Inigo Quilez): nearest edge, sign by crossings.
template <size_t n>
double polygon(const std::array<std::array<double, 2>, n>& v, double x, double y) {
    double d = 1e9;
    bool inside = false;
    for (size_t i = 0, j = n - 1; i < n; j = i++) {
        double ex = v[j][0] - v[i][0], ey = v[j][1] - v[i][1], wx = x - v[i][0], wy = y - v[i][1];
        double t = std::clamp((wx * ex + wy * ey) / (ex * ex + ey * ey), 0.0, 1.0);
        double bx = wx - ex * t, by = wy - ey * t;
        d = std::min(d, bx * bx + by * by);
        if ((v[i][1] > y) != (v[j][1] > y) &&
            x < (v[j][0] - v[i][0]) * (y - v[i][1]) / (v[j][1] - v[i][1]) + v[i][0])
            inside = !inside;
    }
    return inside ? -std::sqrt(d) : std::sqrt(d);
}

// Corners at distance 1 from the centre, alternating with an inner radius for a star.
template <size_t n>
std::array<std::array<double, 2>, n> corners(double inner, double first_angle) {
    std::array<std::array<double, 2>, n> v{};
    for (size_t i = 0; i < n; ++i) {
        double a = first_angle + 2 * kPi * static_cast<double>(i) / static_cast<double>(n),
               r = i % 2 == 0 ? 1 : inner;
        v[i] = {r * std::cos(a), r * std::sin(a)};
    }
    return v;
}

double box(double x, double y, double half_width, double half_height) {
    double qx = std::abs(x) - half_width, qy = std::abs(y) - half_height;
    return length(std::max(qx, 0.0), std::max(qy, 0.0)) + std::min(std::max(qx, qy), 0.0);
}

// Inigo Quilez's heart of unit height, moved and scaled into the unit circle, point down.
double heart(double x, double y) {
    constexpr double kScale = 1.45;
    double px = std::abs(x) / kScale, py = -y / kScale + 0.54;
    double d = 0;
    if (py + px > 1) {
        d = length(px - 0.25, py - 0.75) - std::sqrt(2.0) / 4;
    } else {
        double m = 0.5 * std::max(px + py, 0.0);
        d = std::sqrt(std::min(px * px + (py - 1) * (py - 1), (px - m) * (px - m) + (py - m) * (py - m)));
        d = px > py ? d : -d;
    }
    return d * kScale;
}

// Light multiplies the picture by 1 + strength * (place along its direction, -1 .. 1).
struct LightField {
    double x = 0, y = 0;
    explicit LightField(const Scene& s) {
        switch (s.light) {
            case Light::left: x = -s.light_strength; break;
            case Light::right: x = s.light_strength; break;
            case Light::top: y = -s.light_strength; break;
            case Light::bottom: y = s.light_strength; break;
            case Light::none: break;
        }
    }
    // u, v: place in the picture, -1 .. 1
    double at(double u, double v) const { return 1 + x * u + y * v; }
};

double smooth(double edge_distance, double pixel) {
    return std::clamp(0.5 - edge_distance / pixel, 0.0, 1.0);
}

// How far from the border between the tones of a square wave of this period, negative in its first half.
double wave(double x, double period) {
    double u = x / period - std::floor(x / period);
    return (std::abs(u - 0.5) - 0.25) * -period;  // positive around the middle of the period
}

// The share of the second tone at (x, y); size: the period of the pattern.
double second_tone(Texture texture, double x, double y, double size, bool upright, double pixel) {
    switch (texture) {
        case Texture::plain: return 0;
        case Texture::striped: return smooth(-wave(upright ? x : y, size), pixel);
        case Texture::checkered: {
            double a = smooth(-wave(x, size), pixel), b = smooth(-wave(y, size), pixel);
            return a * (1 - b) + b * (1 - a);
        }
        case Texture::dotted: {
            double u = x / size - std::floor(x / size) - 0.5, v = y / size - std::floor(y / size) - 0.5;
            return smooth((length(u, v) - 0.27) * size, pixel);
        }
        case Texture::gradient: return std::clamp(0.5 + y / size, 0.0, 1.0);
    }
    return 0;
}

// The far end of a gradient: darker than the second tone of the other textures (black: lighter).
Rgb gradient_end(Color color) {
    Rgb tone = paint(color);
    if (color == Color::black) return {84, 84, 90};
    if (color == Color::white) return {136, 136, 136};
    for (double& v : tone) v *= 0.4;
    return tone;
}

Rgb second_paint(Color color, Texture texture) {
    return texture == Texture::gradient ? gradient_end(color) : shade(color);
}

Rgb mix(const Rgb& a, const Rgb& b, double share) {
    return {a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share};
}

class Painter {
public:
    Painter(const Scene& scene, int64_t height, int64_t width)
        : scene_(scene),
          height_(height),
          width_(width),
          pixel_(1.0 / static_cast<double>(std::min(height, width))),
          light_(scene) {}

    void background(const View& view, float* out) const {
        const Rgb first = paint(scene_.background), second = second_paint(scene_.background, scene_.pattern);
        double size =
            scene_.pattern == Texture::gradient ? static_cast<double>(height_) * pixel_ : scene_.pattern_size;
        double shift = scene_.pattern == Texture::gradient ? 0 : scene_.pattern_place * size;
        for (int64_t row = 0; row < height_; ++row) {
            for (int64_t column = 0; column < width_; ++column) {
                double x = x_of(column) / view.zoom - view.shift + shift, y = y_of(row) / view.zoom + shift;
                double share =
                    second_tone(scene_.pattern, x, y, size, scene_.pattern_upright, pixel_ / view.zoom);
                put(out, row, column, mix(first, second, share), 1);
            }
        }
    }

    // pose: as seen, in picture coordinates
    void object(const Object& o, const Pose& pose, float* out) const {
        const Rgb first = paint(o.color), second = second_paint(o.color, o.texture);
        double unit_pixel = pixel_ / pose.radius, c = std::cos(pose.angle), s = std::sin(pose.angle);
        int64_t top = row_of(pose.y - pose.radius) - 2, bottom = row_of(pose.y + pose.radius) + 2;
        int64_t left = column_of(pose.x - pose.radius) - 2, right = column_of(pose.x + pose.radius) + 2;
        // Periods shrink with the object, but not to a few pixels on the small ones.
        double finest = 0.115 / o.start.radius;
        double size = o.texture == Texture::gradient
                          ? 1.7
                          : std::max(o.texture == Texture::dotted ? 0.56 : 0.66, finest);
        for (int64_t row = std::max<int64_t>(0, top); row <= std::min(height_ - 1, bottom); ++row) {
            for (int64_t column = std::max<int64_t>(0, left); column <= std::min(width_ - 1, right);
                 ++column) {
                double dx = (x_of(column) - pose.x) / pose.radius, dy = (y_of(row) - pose.y) / pose.radius;
                double x = c * dx + s * dy, y = -s * dx + c * dy;
                double cover = smooth(distance_to(o.shape, x, y), unit_pixel);
                if (cover <= 0) continue;
                double place = o.texture == Texture::gradient ? 0 : o.fine * size;
                double share = second_tone(o.texture, x + place, y + place, size, o.fine < 0.5, unit_pixel);
                put(out, row, column, mix(first, second, share), cover);
            }
        }
    }

    void finish(const float* in, uint8_t* out) const {
        for (int64_t i = 0; i < height_ * width_ * 3; ++i)
            out[i] = static_cast<uint8_t>(std::clamp(std::lround(in[i]), 0l, 255l));
    }

private:
    double x_of(int64_t column) const {
        return (static_cast<double>(column) + 0.5 - static_cast<double>(width_) / 2) * pixel_;
    }
    double y_of(int64_t row) const {
        return (static_cast<double>(row) + 0.5 - static_cast<double>(height_) / 2) * pixel_;
    }
    int64_t row_of(double y) const {
        return std::llround(y / pixel_ + static_cast<double>(height_) / 2 - 0.5);
    }
    int64_t column_of(double x) const {
        return std::llround(x / pixel_ + static_cast<double>(width_) / 2 - 0.5);
    }

    void put(float* out, int64_t row, int64_t column, const Rgb& color, double cover) const {
        float* p = out + (row * width_ + column) * 3;
        double lit = light_.at(2 * (static_cast<double>(column) + 0.5) / static_cast<double>(width_) - 1,
                               2 * (static_cast<double>(row) + 0.5) / static_cast<double>(height_) - 1);
        for (size_t i = 0; i < 3; ++i)
            p[i] = static_cast<float>(p[i] + (std::min(color[i] * lit, 255.0) - p[i]) * cover);
    }

    const Scene& scene_;
    int64_t height_, width_;
    double pixel_;  // its size in units of the smaller side
    LightField light_;
};

}  // namespace

double distance_to(Shape shape, double x, double y) {
    static constexpr std::array<std::array<double, 2>, 3> triangle = {
        {{0, -1}, {0.8660254, 0.5}, {-0.8660254, 0.5}}};
    static const auto star = corners<10>(0.45, -kPi / 2);
    switch (shape) {
        case Shape::circle: return length(x, y) - 1;
        case Shape::square: return box(x, y, std::sqrt(0.5), std::sqrt(0.5));
        case Shape::triangle: return polygon(triangle, x, y);
        case Shape::star: return polygon(star, x, y);
        case Shape::ring: return std::abs(length(x, y) - 0.78) - 0.22;
        case Shape::heart: return heart(x, y);
        case Shape::cross: return std::min(box(x, y, 0.95, 0.3), box(x, y, 0.3, 0.95));
        case Shape::crescent: return std::max(length(x, y) - 1, 0.78 - length(x - 0.5, y));
    }
    return 1;
}

Tensor render(const Scene& scene, const Bucket& bucket) {
    int64_t height = bucket.height, width = bucket.width, each = height * width * 3;
    Painter painter(scene, height, width);
    std::vector<float> behind(static_cast<size_t>(each), 0.0f), frame;
    bool moving = scene.camera.motion != Motion::still;
    painter.background(view(scene.camera, 0), behind.data());
    Tensor out = empty({bucket.frames, height, width, 3}, DType::U8);
    for (int64_t t = 0; t < bucket.frames; ++t) {
        double s = bucket.frames == 1 ? 0 : static_cast<double>(t) / static_cast<double>(bucket.frames - 1);
        View v = view(scene.camera, s);
        if (moving) painter.background(v, behind.data());
        frame = behind;
        for (const Object& object : scene.objects)
            painter.object(object, seen(object.pose(s), v), frame.data());
        painter.finish(frame.data(), out.data<uint8_t>() + t * each);
    }
    return out;
}

}  // namespace sana::world
