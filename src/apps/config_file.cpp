#include "apps/config_file.h"

#include <toml++/toml.h>
#include <sstream>

#include "io/text_file.h"

namespace sana::apps {

void merge_config_file(Settings& settings, const std::string& path) {
    if (path.ends_with(".json")) {
        settings.merge_json(read_json_text(path), path);
        return;
    }
    try {
        toml::table table = toml::parse(read_text_file(path), path);
        std::ostringstream json;
        json << toml::json_formatter(table);
        settings.merge_json(json.str(), path);
    } catch (const toml::parse_error& error) {
        fail_input(path, ": line ", static_cast<int64_t>(error.source().begin.line), ": ",
                   std::string(error.description()));
    }
}

}  // namespace sana::apps
