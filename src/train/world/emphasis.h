// Which scenes a training run sees more often than chance draws them: what a model learns last.
#pragma once

#include <optional>
#include <vector>

#include "train/world/world.h"

namespace sana::world {

// What has to come together in one object; its motion may also be the camera's.
struct Emphasised {
    std::optional<Shape> shape = {};
    std::optional<Color> color = {};
    std::optional<Size> size = {};
    std::optional<Texture> texture = {};
    std::optional<Motion> motion = {};
    std::optional<Speed> speed = {};
    bool shown_by(const Scene& scene) const;
};

// "small star, fast bounce, zoom-in": the names of the vocabulary, several of one object side by side, objects with commas
// between them; "orbit" is the motion that the truth calls circle. Empty text: none. InputError for other words, for two
// of a kind side by side, and for nothing between commas.
std::vector<Emphasised> parse_emphasis(std::string_view text);

}  // namespace sana::world
