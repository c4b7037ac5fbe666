#include "train/world/judge.h"

#include <algorithm>
#include <cmath>

#include "train/world/look.h"

namespace sana::world {

namespace {

constexpr double kTurn = 2 * 3.14159265358979323846;

double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2), values.end());
    return values[values.size() / 2];
}

double mean(const std::vector<double>& values, size_t begin, size_t end) {
    double sum = 0;
    for (size_t i = begin; i < end; ++i) sum += values[i];
    return sum / static_cast<double>(end - begin);
}

// A thing through the frames in which it is seen.
struct Track {
    std::vector<Region> regions;
    std::vector<double> x, y, radius, angle;  // unit: the smaller side
};

// A shape with edges of some softness.
struct Form {
    Shape shape{};
    int softness = 0;
};

std::pair<double, double> best_angle(const Region& region, int64_t width, const Form& form, double from,
                                     double to, double step) {
    std::pair<double, double> best{from, -1};
    for (double angle = from; angle < to; angle += step) {
        double value = overlap(region, width, form.shape, form.softness, angle);
        if (value > best.second) best = {angle, value};
    }
    return best;
}

// The form by its overlap and likeness on up to nine frames; match: the mean of their product.
std::pair<Form, double> form_of(const Track& track, int64_t width) {
    size_t count = track.regions.size(), looks = std::min<size_t>(9, count);
    std::pair<Form, double> best{{}, -1};
    for (int s = 0; s < kShapes; ++s) {
        for (int softness = 0; softness < kSoftness; ++softness) {
            Form form{static_cast<Shape>(s), softness};
            double sum = 0;
            for (size_t i = 0; i < looks; ++i) {
                const Region& region = track.regions[looks == 1 ? 0 : i * (count - 1) / (looks - 1)];
                sum += best_angle(region, width, form, 0, kTurn, kTurn / 40).second *
                       likeness(region, form.shape, softness);
            }
            double match = sum / static_cast<double>(looks);
            if (match > best.second) best = {form, match};
        }
    }
    return best;
}

// Centre, radius and angle in every frame; angles are followed from frame to frame, so that turns add up.
void follow(Track& track, int64_t width, double side, const Form& form) {
    double angle = 0;
    for (size_t i = 0; i < track.regions.size(); ++i) {
        const Region& region = track.regions[i];
        double from = i == 0 ? -kTurn / 2 : angle - kTurn / 12, to = i == 0 ? kTurn / 2 : angle + kTurn / 12;
        angle = best_angle(region, width, form, from, to, i == 0 ? kTurn / 60 : kTurn / 72).first;
        Pose pose = pose_of(region, form.shape, form.softness, angle);
        track.x.push_back(pose.x / side);
        track.y.push_back(pose.y / side);
        track.radius.push_back(pose.radius / side);
        track.angle.push_back(angle);
    }
}

Motion motion_of(const Track& track, Shape shape) {
    size_t count = track.x.size(), few = std::min<size_t>(3, count);
    if (count < 2) return Motion::still;
    double growth = mean(track.radius, count - few, count) / mean(track.radius, 0, few);
    if (growth > 1.22) return Motion::grow;
    if (growth < 0.82) return Motion::shrink;
    auto range = [](const std::vector<double>& v) {
        auto [low, high] = std::minmax_element(v.begin(), v.end());
        return *high - *low;
    };
    double wide = range(track.x), high = range(track.y), most = std::max(wide, high);
    double dx = mean(track.x, count - few, count) - mean(track.x, 0, few);
    double dy = mean(track.y, count - few, count) - mean(track.y, 0, few), length = 0;
    // Every second step: the noise of single steps adds up otherwise.
    for (size_t i = 2; i < count; i += 2)
        length += std::hypot(track.x[i] - track.x[i - 2], track.y[i] - track.y[i - 2]);
    bool straight = length <= 1.7 * std::hypot(dx, dy);
    // The shortest way that is drawn is 0.1 long, the narrowest circle 0.28 wide, the lowest hop 0.2 high. What goes to and
    // fro within less is the centre of a thing that turns and does not keep its shape.
    if (most < (straight ? 0.055 : 0.14)) {
        double turned = std::abs(track.angle.back() - track.angle.front());
        bool turns = shape != Shape::circle && shape != Shape::ring;
        return turns && turned > kTurn / 7 ? Motion::spin : Motion::still;
    }
    if (!straight) return wide < 0.4 * high ? Motion::bounce : Motion::orbit;
    static constexpr Motion by_eighth[] = {Motion::right, Motion::down_right, Motion::down, Motion::down_left,
                                           Motion::left,  Motion::up_left,    Motion::up,   Motion::up_right};
    return by_eighth[(std::lround(std::atan2(dy, dx) / (kTurn / 8)) + 8) % 8];
}

Size size_of_radius(double radius) {
    // Between the drawn sizes, in equal ratios to both.
    return radius < 0.148 ? Size::small : radius < 0.237 ? Size::medium : Size::large;
}

bool right(const Seen::Thing& thing, const Object& object, int attribute) {
    switch (attribute) {
        case 0: return thing.color == object.color;
        case 1: return thing.shape == object.shape;
        case 2: return thing.size == object.size;
        default: return thing.motion == object.motion;
    }
}

}  // namespace

Seen look_at(const Tensor& frames) {
    check(frames.rank() == 4 && frames.dim(3) == 3 && frames.dtype() == DType::U8, "frames ", frames,
          " to look at");
    int64_t count = frames.dim(0), height = frames.dim(1), width = frames.dim(2), area = height * width;
    double side = static_cast<double>(std::min(height, width));
    std::vector<std::vector<uint8_t>> labels(static_cast<size_t>(count),
                                             std::vector<uint8_t>(static_cast<size_t>(area)));
    std::array<int64_t, kColors> frequency{};
    for (int64_t t = 0; t < count; ++t) {
        const uint8_t* rgb = frames.data<uint8_t>() + t * area * 3;
        for (int64_t i = 0; i < area; ++i) {
            Color color = color_at(rgb + 3 * i);
            labels[static_cast<size_t>(t)][static_cast<size_t>(i)] = static_cast<uint8_t>(color);
            ++frequency[static_cast<size_t>(color)];
        }
    }
    Seen seen;
    seen.background =
        static_cast<Color>(std::max_element(frequency.begin(), frequency.end()) - frequency.begin());
    // Two fifths of the smallest area that is drawn.
    int64_t least = std::max<int64_t>(6, std::llround(0.0055 * side * side));
    std::vector<std::vector<Region>> found;
    std::array<size_t, 8> counts{};
    for (int64_t t = 0; t < count; ++t) {
        const std::vector<uint8_t>& label = labels[static_cast<size_t>(t)];
        found.push_back(regions(label, height, width, seen.background, least));
        sharpen(found.back(), frames.data<uint8_t>() + t * area * 3, label, height, width, seen.background);
        ++counts[std::min<size_t>(found.back().size(), counts.size() - 1)];
    }
    size_t things = static_cast<size_t>(std::max_element(counts.begin(), counts.end()) - counts.begin());
    Backdrop backdrop = look_at_backdrop(frames, labels, seen.background);
    seen.pattern = backdrop.pattern;
    seen.camera = backdrop.camera;
    // Things are followed by colour; the colours that are there in most frames count.
    std::array<int64_t, kColors> presence{};
    for (const auto& frame : found)
        for (size_t i = 0; i < std::min(frame.size(), things); ++i)
            ++presence[static_cast<size_t>(frame[i].color)];
    for (size_t n = 0; n < things; ++n) {
        auto most = std::max_element(presence.begin(), presence.end());
        if (*most == 0) break;
        Color color = static_cast<Color>(most - presence.begin());
        *most = 0;
        Track track;
        for (auto& frame : found) {
            auto it =
                std::find_if(frame.begin(), frame.end(), [&](const Region& r) { return r.color == color; });
            if (it != frame.end()) track.regions.push_back(std::move(*it));
            if (it != frame.end()) frame.erase(it);
        }
        Seen::Thing thing;
        thing.color = color;
        auto [form, match] = form_of(track, width);
        thing.shape = form.shape;
        thing.match = match;
        follow(track, width, side, form);
        thing.radius = median(track.radius);
        thing.size = size_of_radius(thing.radius);
        thing.motion = seen.camera == Motion::still ? motion_of(track, thing.shape) : Motion::still;
        seen.things.push_back(thing);
    }
    // Two things of one colour are two things all the same.
    while (seen.things.size() < things) seen.things.push_back(seen.things.back());
    std::stable_sort(seen.things.begin(), seen.things.end(),
                     [](const Seen::Thing& a, const Seen::Thing& b) { return a.radius > b.radius; });
    return seen;
}

bool Verdict::all() const {
    auto list = values(*this);
    return std::none_of(list.begin(), list.end(),
                        [](const std::optional<bool>& v) { return v.has_value() && !*v; });
}

std::array<std::optional<bool>, 6> values(const Verdict& v) {
    return {v.color, v.shape, v.size, v.motion, v.count, v.background};
}

Verdict judge(const Seen& seen, const Scene& truth, const Stated& stated) {
    Verdict best;
    int best_score = -1;
    size_t objects = truth.objects.size();
    std::vector<size_t> order(std::max(objects, seen.things.size()));
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    // Which thing stands for which object: the assignment that gets most right.
    do {
        std::array<std::optional<bool>, 4> answers;
        int score = 0;
        for (size_t i = 0; i < objects; ++i) {
            const Stated::OfObject& s = stated.objects[i];
            const bool asked[] = {s.color, s.shape, s.size, s.motion};
            for (int a = 0; a < 4; ++a) {
                if (!asked[a]) continue;
                bool good =
                    order[i] < seen.things.size() && right(seen.things[order[i]], truth.objects[i], a);
                // A thing cannot be asked for its own motion while the camera moves.
                if (a == 3 && truth.camera.motion == Motion::still)
                    good = good && seen.camera == Motion::still;
                answers[static_cast<size_t>(a)] = answers[static_cast<size_t>(a)].value_or(true) && good;
                score += good;
            }
        }
        if (score > best_score) {
            best_score = score;
            best.color = answers[0];
            best.shape = answers[1];
            best.size = answers[2];
            best.motion = answers[3];
        }
    } while (std::next_permutation(order.begin(), order.end()) && order.size() <= 5);
    if (stated.camera) best.motion = seen.camera == truth.camera.motion;
    best.count = seen.things.size() == objects;
    if (stated.background)
        best.background =
            seen.background == truth.background && (!stated.pattern || seen.pattern == truth.pattern);
    return best;
}

void Tally::add(const Verdict& verdict) {
    auto list = values(verdict);
    for (size_t a = 0; a < list.size(); ++a) {
        asked[a] += list[a].has_value();
        right[a] += list[a].value_or(false);
    }
    ++count;
    all_right += verdict.all();
}

double Tally::share(size_t a) const {
    return asked[a] == 0 ? 1 : static_cast<double>(right[a]) / static_cast<double>(asked[a]);
}

Tally tally(const std::vector<Asked>& videos) {
    Tally out;
    for (const Asked& v : videos) out.add(judge(v.seen, v.scene, v.caption.stated));
    return out;
}

Tally tally_shuffled(const std::vector<Asked>& videos) {
    Tally out;
    for (size_t shift = 1; shift < std::min<size_t>(videos.size(), 51); ++shift)
        for (size_t i = 0; i < videos.size(); ++i) {
            const Asked& other = videos[(i + shift) % videos.size()];
            out.add(judge(videos[i].seen, other.scene, other.caption.stated));
        }
    return out;
}

double psnr(const Tensor& a, const Tensor& b) {
    check(a.shape() == b.shape() && a.dtype() == DType::U8 && b.dtype() == DType::U8, "pictures ", a, " and ",
          b);
    double squares = 0;
    for (int64_t i = 0; i < a.numel(); ++i) {
        double d = static_cast<double>(a.data<uint8_t>()[i]) - b.data<uint8_t>()[i];
        squares += d * d;
    }
    return squares == 0
               ? 100
               : std::min(100.0, 10 * std::log10(255.0 * 255.0 * static_cast<double>(a.numel()) / squares));
}

}  // namespace sana::world
