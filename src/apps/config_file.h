// Config files of the parameter table: TOML, or JSON by extension.
#pragma once

#include "pipeline/parameters.h"

namespace sana::apps {

// Values that settings have already (from the command line) stay.
void merge_config_file(Settings& settings, const std::string& path);

}  // namespace sana::apps
