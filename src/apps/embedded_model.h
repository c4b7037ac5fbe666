// The model that comes with the program, and what a model folder says about its use.
#pragma once

#include <string>

#include "pipeline/parameters.h"

namespace sana::apps {

// share/sana/embedded (installed) or models/embedded (a source tree) in a folder or in one of the four above it; empty:
// none.
std::string find_embedded_model(const std::string& folder);

// The same for this program, unless SANA_EMBEDDED_MODEL names another folder.
std::string embedded_model();

// The paths that the settings name; without a model, those of the embedded one. InputError when there is none.
ModelPaths paths_of_model(const Settings& settings);

// The folder's own defaults for what is not set.
void take_defaults(Settings& settings, const ModelFolder& model);

// What to say about a prompt that is far from what the model was trained on; empty: nothing, or nothing is known.
std::string advice(const ModelFolder& model, const std::string& prompt);

}  // namespace sana::apps
