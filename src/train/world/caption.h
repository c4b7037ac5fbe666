// Wordings of a scene: many ways to say each fact, in several orders, with facts left out at times, and which facts were
// said. Also what words the world knows at all.
#pragma once

#include <set>

#include "train/world/world.h"

namespace sana::world {

// Which facts a caption states; what it leaves out cannot be asked of a video made from it.
struct Stated {
    struct OfObject {
        bool shape = false, color = false, size = false, texture = false, motion = false, speed = false;
    };
    std::vector<OfObject> objects;
    bool background = false, pattern = false, camera = false, light = false;
};

struct Caption {
    std::string text;  // lower case
    Stated stated;
};

struct CaptionOptions {
    // A tenth of all pairs of a sentence and a phrase for the motion, chosen by a hash, is kept for evaluation.
    Split wording = Split::training;
    bool complete = false;  // shape, colour, motion and background are always said
};

// A wording of the scene: a function of the scene's seed and index, the number and the options.
Caption make_caption(const Scene& scene, int64_t number, const CaptionOptions& options = {});

// Every word that a caption can hold, lower case, sorted.
const std::set<std::string>& known_words();

// The words of a prompt that the world does not know, in their order, each once.
std::vector<std::string> unknown_words(std::string_view prompt);

// What to tell the writer of a prompt that is far from the world: names what it does not know and what it draws.
// Empty when every word is known and a shape is among them.
std::string advice(std::string_view prompt);

}  // namespace sana::world
