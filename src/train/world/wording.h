// The tables of words and sentences that captions are made of. The first entry of a list is the plainest.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "train/world/world.h"

namespace sana::world::wording {

using Words = std::vector<std::string>;

const Words& shapes(Shape shape);
const Words& any_shape();
const Words& colors(Color color);
const Words& sizes(Size size);
const Words& textures(Texture texture);
const Words& texture_tails(Texture texture);  // "with stripes"
const Words& speeds(Speed speed);
const Words& backgrounds();  // nouns
const Words& places();       // "over"
const Words& links();        // between the two halves of a sentence
const Words& light_tails();  // {s}: the side

// "moves left", "moving left"; of the camera: whole clauses
const std::vector<std::pair<std::string, std::string>>& motions(Motion motion);

// Sentences. {o} objects, {b} over a blue background, {n} blue background, {l} the background is blue,
// {v} object moves, {g} object moving, {w} moves, {h} moving, {c} the camera pans left. Bare: without background.
const Words& frames();
const Words& frames_bare();
const Words& pair_frames();
const Words& pair_frames_bare();
const Words& camera_frames();
const Words& camera_frames_bare();
const Words& picture_frames();
const Words& picture_frames_bare();

std::vector<std::string> all_texts();  // every entry of every table

}  // namespace sana::world::wording
