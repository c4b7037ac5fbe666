#include "train/world/wording.h"

namespace sana::world::wording {

namespace {

template <size_t n>
using Table = std::array<Words, n>;

const Table<kShapes> kShapeWords = {{{"circle", "disc", "ball"},
                                     {"square", "box"},
                                     {"triangle"},
                                     {"star"},
                                     {"ring", "hoop"},
                                     {"heart"},
                                     {"cross", "plus sign"},
                                     {"crescent", "crescent moon"}}};
const Words kAnyShape = {"shape", "object"};
const Table<kColors> kColorWords = {{{"red", "scarlet"},
                                     {"orange"},
                                     {"yellow"},
                                     {"green"},
                                     {"cyan", "turquoise"},
                                     {"blue"},
                                     {"purple", "violet"},
                                     {"pink"},
                                     {"white"},
                                     {"black"}}};
const Table<kSizes> kSizeWords = {
    {{"small", "little", "tiny"}, {"medium", "medium-sized"}, {"large", "big", "huge"}}};
const Table<kTextures> kTextureWords = {{{"plain", "solid"},
                                         {"striped", "stripy"},
                                         {"dotted", "spotted", "polka-dot"},
                                         {"checkered", "chequered"},
                                         {"shaded", "gradient"}}};
const Table<kTextures> kTextureTails = {{{},
                                         {"with stripes", "with a striped pattern"},
                                         {"with dots", "covered in dots"},
                                         {"with checks", "with a checkered pattern"},
                                         {"with a gradient"}}};
const Table<kSpeeds> kSpeedWords = {{{"slowly", "gently", "at a slow pace"},
                                     {"steadily", "at an even pace"},
                                     {"quickly", "fast", "rapidly", "at high speed"}}};
const Words kBackgrounds = {"background", "backdrop"};
const Words kPlaces = {"over", "on", "against", "in front of"};
const Words kLinks = {" and ", " while ", ", and ", " as "};
const Words kLightTails = {", lit from the {s}", ", with light from the {s}",
                           ". the light comes from the {s}"};

using Phrases = std::vector<std::pair<std::string, std::string>>;

// Verbs of straight motion with each way to name a direction.
Phrases straight(const Words& ways, const Phrases& own = {}) {
    static const Phrases verbs = {{"moves", "moving"},    {"slides", "sliding"},     {"glides", "gliding"},
                                  {"drifts", "drifting"}, {"travels", "travelling"}, {"goes", "going"}};
    Phrases out;
    for (const auto& [finite, gerund] : verbs)
        for (const std::string& way : ways) out.emplace_back(finite + " " + way, gerund + " " + way);
    out.insert(out.end(), own.begin(), own.end());
    return out;
}

Words diagonal(const std::string& vertical, const std::string& side, const std::string& corner) {
    return {vertical + " and to the " + side, "diagonally " + vertical + " and " + side,
            "towards the " + corner + " " + side};
}

Phrases camera(const Words& clauses) {
    Phrases out;
    for (const std::string& clause : clauses) out.emplace_back(clause, clause);
    return out;
}

const std::array<Phrases, kMotions> kMotionPhrases = {
    {Phrases{{"stays still", "staying still"},
             {"stands still", "standing still"},
             {"does not move", "not moving"},
             {"rests", "resting"},
             {"remains in place", "remaining in place"}},
     straight({"left", "to the left", "leftwards", "from right to left"}),
     straight({"right", "to the right", "rightwards", "from left to right"}),
     straight({"up", "upwards", "to the top"}, {{"rises", "rising"}, {"climbs", "climbing"}}),
     straight({"down", "downwards", "to the bottom"}, {{"falls", "falling"}, {"sinks", "sinking"}}),
     straight(diagonal("up", "left", "upper")), straight(diagonal("up", "right", "upper")),
     straight(diagonal("down", "left", "lower")), straight(diagonal("down", "right", "lower")),
     Phrases{{"moves in a circle", "moving in a circle"},
             {"circles around", "circling around"},
             {"goes round in a circle", "going round in a circle"},
             {"orbits", "orbiting"}},
     Phrases{{"bounces", "bouncing"},
             {"bounces up and down", "bouncing up and down"},
             {"hops up and down", "hopping up and down"},
             {"jumps up and down", "jumping up and down"}},
     Phrases{{"spins", "spinning"},
             {"rotates", "rotating"},
             {"spins in place", "spinning in place"},
             {"turns around itself", "turning around itself"}},
     Phrases{{"grows", "growing"},
             {"gets bigger", "getting bigger"},
             {"becomes larger", "becoming larger"},
             {"expands", "expanding"}},
     Phrases{{"shrinks", "shrinking"},
             {"gets smaller", "getting smaller"},
             {"becomes smaller", "becoming smaller"},
             {"contracts", "contracting"}},
     camera({"the camera pans left", "the camera moves to the left", "the view pans left",
             "the view moves left"}),
     camera({"the camera pans right", "the camera moves to the right", "the view pans right",
             "the view moves right"}),
     camera(
         {"the camera zooms in", "the view zooms in", "the camera moves closer", "the camera comes nearer"}),
     camera(
         {"the camera zooms out", "the view zooms out", "the camera moves away", "the camera moves back"})}};

const Words kFrames = {"{v} {b}",
                       "{g} {b}",
                       "{b}, {v}",
                       "{b} there is {g}",
                       "{v}. {l}.",
                       "{l} and {v}",
                       "a video of {g} {b}",
                       "{g}, {n}",
                       "{o} {b}, {h}",
                       "we see {o} {b}; it {w}",
                       "the clip shows {o} that {w} {b}",
                       "{o} {w} {b}",
                       "{l}. {v}.",
                       "there is {o} {b}. it {w}.",
                       "{h} {b}: {o}"};
const Words kFramesBare = {
    "{v}", "{g}", "a video of {g}", "the clip shows {o} that {w}", "there is {o}. it {w}.", "we see {g}"};
const Words kPairFrames = {"{v} {b}",
                           "{g} {b}",
                           "{b}, {v}",
                           "{b} there are {g}",
                           "{v}. {l}.",
                           "{l} and {v}",
                           "a video of {g} {b}",
                           "{g}, {n}",
                           "we see {g} {b}",
                           "{l}. {v}.",
                           "the clip shows {g} {b}"};
const Words kPairFramesBare = {"{v}", "{g}", "a video of {g}", "we see {g}", "two shapes: {g}"};
const Words kCameraFrames = {"{o} {b} while {c}", "{c} over {o} {b}",     "{l}. there is {o}. {c}.",
                             "{o} {b}, {c}",      "{c}, showing {o} {b}", "a video of {o} {b} as {c}",
                             "{c}. {o} {b}."};
const Words kCameraFramesBare = {"{o} while {c}", "{c} over {o}", "there is {o}. {c}.", "{c}, showing {o}"};
const Words kPictureFrames = {"{o} {b}",   "a picture of {o} {b}", "{b} there is {o}",
                              "{o}. {l}.", "{l} and there is {o}", "{o}, {n}"};
const Words kPictureFramesBare = {"{o}", "a picture of {o}", "there is {o}"};

}  // namespace

const Words& shapes(Shape v) { return kShapeWords[static_cast<size_t>(v)]; }
const Words& any_shape() { return kAnyShape; }
const Words& colors(Color v) { return kColorWords[static_cast<size_t>(v)]; }
const Words& sizes(Size v) { return kSizeWords[static_cast<size_t>(v)]; }
const Words& textures(Texture v) { return kTextureWords[static_cast<size_t>(v)]; }
const Words& texture_tails(Texture v) { return kTextureTails[static_cast<size_t>(v)]; }
const Words& speeds(Speed v) { return kSpeedWords[static_cast<size_t>(v)]; }
const Words& backgrounds() { return kBackgrounds; }
const Words& places() { return kPlaces; }
const Words& links() { return kLinks; }
const Words& light_tails() { return kLightTails; }
const Phrases& motions(Motion v) { return kMotionPhrases[static_cast<size_t>(v)]; }
const Words& frames() { return kFrames; }
const Words& frames_bare() { return kFramesBare; }
const Words& pair_frames() { return kPairFrames; }
const Words& pair_frames_bare() { return kPairFramesBare; }
const Words& camera_frames() { return kCameraFrames; }
const Words& camera_frames_bare() { return kCameraFramesBare; }
const Words& picture_frames() { return kPictureFrames; }
const Words& picture_frames_bare() { return kPictureFramesBare; }

std::vector<std::string> all_texts() {
    Words out = {"a", "an", "that is", "and", "the", "is", "one", "left right top bottom"};
    auto add = [&](const Words& words) { out.insert(out.end(), words.begin(), words.end()); };
    for (const auto& words : kShapeWords) add(words);
    for (const auto& words : kColorWords) add(words);
    for (const auto& words : kSizeWords) add(words);
    for (const auto& words : kTextureWords) add(words);
    for (const auto& words : kTextureTails) add(words);
    for (const auto& words : kSpeedWords) add(words);
    for (const Words* words :
         {&kAnyShape, &kBackgrounds, &kPlaces, &kLinks, &kLightTails, &kFrames, &kFramesBare, &kPairFrames,
          &kPairFramesBare, &kCameraFrames, &kCameraFramesBare, &kPictureFrames, &kPictureFramesBare})
        add(*words);
    for (const Phrases& phrases : kMotionPhrases)
        for (const auto& [finite, gerund] : phrases) {
            out.push_back(finite);
            out.push_back(gerund);
        }
    return out;
}

}  // namespace sana::world::wording
