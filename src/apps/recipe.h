// The recipe kept with a video: everything needed to make it again.
#pragma once

#include <string>

#include "pipeline/parameters.h"
#include "pipeline/video_pipeline.h"

namespace sana::apps {

// {"program", "version", "parameters", "resolved", "model", "image_sha256"}
std::string make_recipe(const Settings& settings, const Plan& plan, const VideoPipeline& pipeline);

struct Recipe {
    Settings settings;
    std::string version;
    std::vector<std::pair<std::string, std::string>> fingerprints;
    std::string image_sha256;
};
Recipe parse_recipe(const std::string& json, const std::string& source);

std::string file_sha256(const std::string& path);

}  // namespace sana::apps
