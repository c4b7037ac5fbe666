#include "train/world/emphasis.h"

#include <algorithm>
#include <sstream>

namespace sana::world {

namespace {

// Sets value where word names one; false where it does not.
template <class T>
bool take(std::string_view word, int count, std::optional<T>& value) {
    for (int i = 0; i < count; ++i) {
        if (word != name_of(static_cast<T>(i))) continue;
        check_input(!value.has_value(), "emphasis: '", name_of(*value), "' and '", word,
                    "' side by side; put a comma between different objects");
        value = static_cast<T>(i);
        return true;
    }
    return false;
}

Emphasised parse_one(const std::string& text) {
    Emphasised e;
    std::istringstream words(text);
    int count = 0;
    for (std::string word; words >> word; ++count) {
        // The motion's own name is that of a shape.
        if (word == "orbit") {
            check_input(!e.motion.has_value(), "emphasis: two motions in '", text, "'");
            e.motion = Motion::orbit;
            continue;
        }
        check_input(
            take(word, kShapes, e.shape) || take(word, kColors, e.color) || take(word, kSizes, e.size) ||
                take(word, kTextures, e.texture) || take(word, kMotions, e.motion) ||
                take(word, kSpeeds, e.speed),
            "emphasis: the world has no '", word,
            "'; name shapes, colours, sizes, looks, motions and speeds as the truth of sana data draw "
            "does, for example: small star, fast bounce");
    }
    check_input(count > 0, "emphasis: nothing between two commas");
    return e;
}

}  // namespace

bool Emphasised::shown_by(const Scene& scene) const {
    return std::any_of(scene.objects.begin(), scene.objects.end(), [&](const Object& o) {
        bool camera = scene.camera.motion != Motion::still;
        Motion shown = camera ? scene.camera.motion : o.motion;
        Speed pace = camera ? scene.camera.speed : o.speed;
        return shape.value_or(o.shape) == o.shape && color.value_or(o.color) == o.color &&
               size.value_or(o.size) == o.size && texture.value_or(o.texture) == o.texture &&
               motion.value_or(shown) == shown && speed.value_or(pace) == pace;
    });
}

std::vector<Emphasised> parse_emphasis(std::string_view text) {
    std::vector<Emphasised> out;
    if (text.find_first_not_of(' ') == std::string_view::npos) return out;
    for (size_t begin = 0; begin <= text.size();) {
        size_t end = std::min(text.find(',', begin), text.size());
        out.push_back(parse_one(std::string(text.substr(begin, end - begin))));
        begin = end + 1;
    }
    return out;
}

}  // namespace sana::world
