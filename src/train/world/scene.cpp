// What happens in a scene, and where: everything stays inside the picture, and two objects never touch.
#include <algorithm>
#include <cmath>

#include "train/world/world.h"

namespace sana::world {

namespace {

constexpr double kTurn = 2 * 3.14159265358979323846;
constexpr double kMargin = 0.02;  // to the picture's edge
constexpr double kGap = 0.05;     // between objects

// Radii of the sizes: a factor 1.5 or more apart in radius, with room for variation.
constexpr std::array<std::array<double, 2>, kSizes> kRadius = {
    {{0.105, 0.125}, {0.175, 0.205}, {0.275, 0.31}}};

struct Room {
    double half_width, half_height;
};
Room room_of(double aspect) { return {std::max(1.0, aspect) / 2, std::max(1.0, 1 / aspect) / 2}; }

struct Box {
    double left, top, right, bottom;
};

// Everything that an object touches in the clip.
Box reach(const Object& object) {
    Box box{1e9, 1e9, -1e9, -1e9};
    for (int i = 0; i <= 24; ++i) {
        Pose p = object.pose(i / 24.0);
        box = {std::min(box.left, p.x - p.radius), std::min(box.top, p.y - p.radius),
               std::max(box.right, p.x + p.radius), std::max(box.bottom, p.y + p.radius)};
    }
    return box;
}

bool inside(const Box& box, const Room& room) {
    return box.left >= -room.half_width + kMargin && box.right <= room.half_width - kMargin &&
           box.top >= -room.half_height + kMargin && box.bottom <= room.half_height - kMargin;
}

bool touch(const Object& a, const Object& b) {
    for (int i = 0; i <= 24; ++i) {
        Pose p = a.pose(i / 24.0), q = b.pose(i / 24.0);
        if (std::hypot(p.x - q.x, p.y - q.y) < p.radius + q.radius + kGap) return true;
    }
    return false;
}

// How much of a motion fits two seconds at each speed.
double rate(Motion motion, Speed speed) {
    auto pick = [&](double slow, double normal, double fast) {
        return speed == Speed::slow ? slow : speed == Speed::normal ? normal : fast;
    };
    switch (motion) {
        case Motion::orbit: return pick(0.8, 1.2, 2.0);   // turns
        case Motion::spin: return pick(0.3, 0.55, 1.0);   // turns
        case Motion::bounce: return pick(1.5, 2.5, 4.0);  // hops
        case Motion::grow:
        case Motion::shrink: return pick(1.45, 1.8, 2.3);  // ratio of radii
        case Motion::pan_left:
        case Motion::pan_right: return pick(0.35, 0.65, 1.1);
        case Motion::zoom_in:
        case Motion::zoom_out: return pick(1.35, 1.65, 2.1);
        default: return pick(0.3, 0.55, 0.92);  // share of the free way
    }
}

// A motion that goes on for longer does more of it, but for those that a border or a size ends.
double amount_of(Motion motion, Speed speed, double seconds) {
    double amount = rate(motion, speed), longer = seconds / 2;
    switch (motion) {
        case Motion::orbit:
        case Motion::spin:
        case Motion::bounce:
            return motion == Motion::orbit ? std::max(0.75, amount * longer) : amount * longer;
        case Motion::pan_left:
        case Motion::pan_right: return amount * longer;
        case Motion::grow:
        case Motion::shrink:
        case Motion::zoom_in:
        case Motion::zoom_out: return std::pow(amount, std::min(longer, 1.2));
        default: return std::min(0.95, amount * longer);
    }
}

bool fits(Motion motion, Speed speed, double seconds) {
    return !is_straight(motion) || rate(motion, speed) * seconds / 2 <= 0.951;
}

// Places an object for its motion at random; whether it fits is for the caller to see.
void place(Object& o, Draws& draws, const Room& room, double seconds) {
    auto& range = kRadius[static_cast<size_t>(o.size)];
    double radius = draws.between(range[0], range[1]);
    o.start.radius = radius;
    o.start.angle = draws.between(-0.14, 0.14);
    o.turning = draws.chance(0.5) ? 1 : -1;
    o.fine = draws.unit();
    o.phase = draws.between(0, kTurn);
    o.amount = amount_of(o.motion, o.speed, seconds);
    o.extent = 0;
    double reach_x = radius, reach_y = radius;
    if (o.motion == Motion::grow || o.motion == Motion::shrink) {
        double largest = draws.between(0.26, 0.36);
        o.start.radius = o.motion == Motion::grow ? largest / o.amount : largest;
        reach_x = reach_y = largest;
    } else if (o.motion == Motion::orbit) {
        o.extent = draws.between(0.14, 0.24);
        reach_x = reach_y = radius + o.extent;
    } else if (o.motion == Motion::bounce) {
        o.extent = draws.between(0.2, 0.4);
    }
    double x_room = room.half_width - kMargin - reach_x, y_room = room.half_height - kMargin - reach_y;
    o.start.x = draws.between(-x_room, x_room);
    o.start.y = draws.between(-y_room, y_room);
    if (o.motion == Motion::bounce) o.start.y = draws.between(y_room - 0.3, y_room);
    if (is_straight(o.motion)) {
        auto [dx, dy] = direction(o.motion);
        // A diagonal goes at 45 degrees, so the shorter side bounds it.
        double way = dx == 0 ? 2 * y_room : dy == 0 ? 2 * x_room : 2 * std::min(x_room, y_room);
        o.amount *= way;
        double slack = way - o.amount, at = draws.unit();
        if (dx != 0) {
            double free = dy == 0 ? slack : 2 * x_room - o.amount;
            o.start.x = dx > 0 ? -x_room + at * free : x_room - at * free;
        }
        if (dy != 0) {
            double free = dx == 0 ? slack : 2 * y_room - o.amount;
            o.start.y = dy > 0 ? -y_room + draws.unit() * free : y_room - draws.unit() * free;
        }
    }
}

double squared(double v) { return v * v; }

// Whether two colours can be told apart beside each other, also in their second tones.
bool apart(Color a, Color b) {
    if (a == b) return false;
    double nearest = 1e9;
    for (const Rgb& p : {paint(a), shade(a)})
        for (const Rgb& q : {paint(b), shade(b)})
            nearest = std::min(nearest, squared(p[0] - q[0]) + squared(p[1] - q[1]) + squared(p[2] - q[2]));
    return nearest > squared(75);
}

Color color_apart_from(Draws& draws, const std::vector<Color>& others) {
    while (true) {
        Color color = static_cast<Color>(draws.below(kColors));
        if (std::all_of(others.begin(), others.end(), [&](Color o) { return apart(color, o); })) return color;
    }
}

bool turns_visibly(Shape shape) { return shape != Shape::circle && shape != Shape::ring; }

Motion draw_motion(Draws& draws, bool picture) {
    if (picture) return Motion::still;
    // The straight ones are half of all; the camera moves in an eighth of the clips.
    if (draws.chance(0.5)) return static_cast<Motion>(1 + draws.below(8));
    if (draws.chance(0.25)) return static_cast<Motion>(static_cast<int>(Motion::pan_left) + draws.below(4));
    static constexpr Motion others[] = {Motion::still, Motion::orbit, Motion::bounce,
                                        Motion::spin,  Motion::grow,  Motion::shrink};
    return others[draws.below(6)];
}

Speed draw_speed(Draws& draws, Motion motion, double seconds) {
    if (motion == Motion::still) return Speed::normal;
    while (true) {
        Speed speed = static_cast<Speed>(draws.below(kSpeeds));
        if (fits(motion, speed, seconds)) return speed;
    }
}

Texture draw_texture(Draws& draws) {
    return draws.chance(0.55) ? Texture::plain : static_cast<Texture>(1 + draws.below(kTextures - 1));
}

// The motion that a scene shows with an object: its own, or the camera's.
Motion shown_motion(const Object& object, const Camera& camera) {
    return camera.motion == Motion::still ? object.motion : camera.motion;
}

void draw_object(Object& o, Draws& draws, Motion motion, const std::vector<Color>& taken, double seconds) {
    o.motion = motion;
    do {
        o.shape = static_cast<Shape>(draws.below(kShapes));
    } while (motion == Motion::spin && !turns_visibly(o.shape));
    o.color = color_apart_from(draws, taken);
    o.size = static_cast<Size>(draws.below(kSizes));
    o.texture = draw_texture(draws);
    o.speed = draw_speed(draws, motion, seconds);
}

}  // namespace

Pose Object::pose(double s) const {
    Pose p = start;
    switch (motion) {
        case Motion::orbit:
            p.x += extent * std::cos(phase + turning * kTurn * amount * s);
            p.y += extent * std::sin(phase + turning * kTurn * amount * s);
            break;
        case Motion::bounce: {
            double hop = amount * s, u = hop - std::floor(hop);
            p.y -= extent * 4 * u * (1 - u);
            break;
        }
        case Motion::spin: p.angle += turning * kTurn * amount * s; break;
        case Motion::grow: p.radius *= std::pow(amount, s); break;
        case Motion::shrink: p.radius *= std::pow(amount, -s); break;
        default: {
            auto [dx, dy] = direction(motion);
            p.x += dx * amount * s;
            p.y += dy * amount * s;
        }
    }
    return p;
}

View view(const Camera& camera, double s) {
    switch (camera.motion) {
        case Motion::pan_left: return {camera.amount * s, 1};
        case Motion::pan_right: return {-camera.amount * s, 1};
        case Motion::zoom_in: return {0, std::pow(camera.amount, s)};
        case Motion::zoom_out: return {0, std::pow(camera.amount, 1 - s)};
        default: return {};
    }
}

Pose seen(const Pose& p, const View& v) {
    return {(p.x + v.shift) * v.zoom, p.y * v.zoom, p.radius * v.zoom, p.angle};
}

Scene make_scene(uint64_t seed, int64_t index, const Bucket& bucket, double fps, Split split) {
    check_input(bucket.frames >= 1 && bucket.height >= 16 && bucket.width >= 16 && fps > 0,
                "a drawn clip has at least ", "1 frame of 16 x 16 pixels, not ", bucket.frames, " of ",
                bucket.width, " x ", bucket.height);
    check_input(bucket.width <= 4 * bucket.height && bucket.height <= 4 * bucket.width, "a drawn clip of ",
                bucket.width, " x ", bucket.height, " pixels is longer than 4 : 1");
    // The two splits draw from streams of their own.
    Draws draws(seed, static_cast<uint64_t>(index) * 2 + (split == Split::held_out ? 1 : 0));
    bool picture = bucket.frames == 1;
    Scene scene;
    scene.seed = seed;
    scene.index = index;
    scene.aspect = static_cast<double>(bucket.width) / static_cast<double>(bucket.height);
    scene.seconds = picture ? 0 : static_cast<double>(bucket.frames - 1) / fps;
    double seconds = picture ? 2 : scene.seconds;
    Room room = room_of(scene.aspect);

    scene.background = static_cast<Color>(draws.below(kColors));
    Motion first = draw_motion(draws, picture);
    bool two = draws.chance(is_camera(first) ? 0.25 : 0.4);
    if (is_camera(first)) {
        // Without a pattern a moving camera looks like a moving object.
        scene.camera = {first, draw_speed(draws, first, seconds), 0};
        scene.camera.amount = amount_of(first, scene.camera.speed, seconds);
        bool pan = first == Motion::pan_left || first == Motion::pan_right;
        if (pan) scene.camera.amount = std::min(scene.camera.amount, 2 * room.half_width - 0.32);
        scene.pattern = draws.chance(0.5) ? Texture::dotted : Texture::checkered;
    } else {
        scene.pattern = draw_texture(draws);
    }
    scene.pattern_size = draws.between(0.2, 0.3);
    scene.pattern_place = draws.unit();
    scene.pattern_upright = draws.chance(0.5);
    // A gradient behind the scene and light from a side would be one sum that nobody can take apart.
    if (scene.pattern != Texture::gradient && draws.chance(0.4)) {
        scene.light = static_cast<Light>(1 + draws.below(kLights - 1));
        scene.light_strength = draws.between(0.1, 0.2);
    }

    // Sizes and places are drawn again until everything fits; after many failures with two, one object is left.
    for (int attempt = 0;; ++attempt) {
        scene.objects.assign(two && attempt < 200 ? 2 : 1, {});
        std::vector<Color> taken = {scene.background};
        bool good = true;
        for (size_t i = 0; i < scene.objects.size(); ++i) {
            Object& o = scene.objects[i];
            Motion motion = is_camera(first) ? Motion::still : i == 0 ? first : draw_motion(draws, picture);
            if (is_camera(motion)) motion = Motion::still;
            draw_object(o, draws, motion, taken, seconds);
            taken.push_back(o.color);
            place(o, draws, room, seconds);
            // The nearer end of a zoom and the whole way of a pan have to fit as well.
            Box box = reach(o);
            if (scene.camera.motion == Motion::zoom_in || scene.camera.motion == Motion::zoom_out) {
                double zoom = scene.camera.amount;
                box = {box.left * zoom, box.top * zoom, box.right * zoom, box.bottom * zoom};
            }
            if (scene.camera.motion == Motion::pan_left) box.right += scene.camera.amount;
            if (scene.camera.motion == Motion::pan_right) box.left -= scene.camera.amount;
            good = good && inside(box, room) && (i == 0 || !touch(scene.objects[0], o));
            bool reserved = held_out(o.shape, o.color, shown_motion(o, scene.camera));
            good = good && reserved == (split == Split::held_out && i == 0);
        }
        if (good) return scene;
        check(attempt < 200000, "scene ", index, " of seed ", static_cast<int64_t>(seed),
              " finds no place for its objects");
    }
}

}  // namespace sana::world
