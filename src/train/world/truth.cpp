#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "train/world/world.h"

namespace sana::world {

namespace {

double rounded(double v) { return std::round(v * 100) / 100; }

}  // namespace

std::string truth_json(const Scene& scene, const Bucket& bucket, double fps,
                       const std::vector<std::string>& captions) {
    using nlohmann::ordered_json;
    double scale = static_cast<double>(std::min(bucket.width, bucket.height));
    double center_x = static_cast<double>(bucket.width) / 2,
           center_y = static_cast<double>(bucket.height) / 2;
    ordered_json objects = ordered_json::array();
    for (const Object& o : scene.objects) {
        ordered_json track = ordered_json::array();
        for (int64_t t = 0; t < bucket.frames; ++t) {
            double s =
                bucket.frames == 1 ? 0 : static_cast<double>(t) / static_cast<double>(bucket.frames - 1);
            Pose p = seen(o.pose(s), view(scene.camera, s));
            track.push_back({rounded(center_x + p.x * scale), rounded(center_y + p.y * scale),
                             rounded(p.radius * scale), rounded(p.angle * 180 / 3.14159265358979323846)});
        }
        objects.push_back({{"shape", name_of(o.shape)},
                           {"color", name_of(o.color)},
                           {"size", name_of(o.size)},
                           {"texture", name_of(o.texture)},
                           {"motion", name_of(o.motion)},
                           {"speed", name_of(o.speed)},
                           {"track", track}});
    }
    ordered_json json = {
        {"seed", scene.seed},
        {"index", scene.index},
        {"frames", bucket.frames},
        {"height", bucket.height},
        {"width", bucket.width},
        {"captions", captions},
        {"fps", fps},
        {"objects", objects},
        {"background", {{"color", name_of(scene.background)}, {"pattern", name_of(scene.pattern)}}},
        {"light", name_of(scene.light)},
        {"camera", {{"motion", name_of(scene.camera.motion)}, {"speed", name_of(scene.camera.speed)}}},
        {"track_columns", {"x", "y", "radius", "angle"}}};
    return json.dump(1) + "\n";
}

}  // namespace sana::world
