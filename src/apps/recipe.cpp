#include "apps/recipe.h"

#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "core/hash.h"
#include "core/parallel.h"
#include "io/mmap.h"

namespace sana::apps {

using nlohmann::ordered_json;

std::string file_sha256(const std::string& path) {
    auto file = MappedFile::open(path);
    Sha256 hash;
    hash.update(file->data(), static_cast<size_t>(file->bytes()));
    return hash.hex();
}

std::string make_recipe(const Settings& settings, const Plan& plan, const VideoPipeline& pipeline) {
    ordered_json json{{"program", "sana.cpp"}, {"version", version_text()}};
    json["parameters"] = ordered_json::parse(settings.to_json(true));
    json["resolved"] = {
        {"model_width", plan.size.width}, {"model_height", plan.size.height},
        {"width", plan.output.width},     {"height", plan.output.height},
        {"frames", plan.frames},          {"sampler", std::string(name_of(plan.sampler))},
        {"flow_shift", plan.flow_shift},  {"device", join(pipeline.placement().device)},
        {"threads", threads()},           {"prompt_template", describe(pipeline.model().prompt_template)}};
    json["model"] = ordered_json::object();
    for (const auto& [part, fingerprint] : pipeline.model().fingerprints()) json["model"][part] = fingerprint;
    if (settings.given("image")) json["image_sha256"] = file_sha256(settings.text("image"));
    return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Recipe parse_recipe(const std::string& text, const std::string& source) {
    nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
    bool ours = json.is_object() && json.contains("parameters") && json["parameters"].is_object() &&
                json.value("program", "") == "sana.cpp";
    check_input(ours, source, ": its metadata is no recipe of this program");
    Recipe recipe;
    recipe.settings.merge_json(json["parameters"].dump(), source);
    if (json.contains("version") && json["version"].is_string())
        recipe.version = json["version"].get<std::string>();
    if (json.contains("model") && json["model"].is_object()) {
        for (auto& [part, value] : json["model"].items()) {
            if (value.is_string()) recipe.fingerprints.emplace_back(part, value.get<std::string>());
        }
    }
    if (json.contains("image_sha256") && json["image_sha256"].is_string())
        recipe.image_sha256 = json["image_sha256"].get<std::string>();
    return recipe;
}

}  // namespace sana::apps
