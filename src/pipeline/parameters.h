// The one table of parameters of a generation: the command line, the config file, the metadata of a video and the
// reference page are made from it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "pipeline/model_folder.h"
#include "pipeline/placement.h"
#include "pipeline/request.h"

namespace sana {

enum class ParameterType { text, integer, number, flag, choice, file, device };

struct ParameterInfo {
    std::string name;  // --name on the command line, the key in config files and metadata
    ParameterType type = ParameterType::text;
    std::string fallback;  // default, as text; "" with `optional`: the model decides
    double low = 0, high = 0;
    std::vector<std::string> choices;
    std::string unit;
    std::string group;
    std::string help;
    bool optional = false;
    std::string replaced_by;  // the parameter that takes this one's place when it is given
    bool recipe = true;       // part of the recipe that is kept with a video
};

const std::vector<ParameterInfo>& parameter_table();

// Values of parameters, checked against the table when they are set.
class Settings {
public:
    // Another table (of a training run) has other names; what makes a request or a placement needs those of a generation.
    explicit Settings(const std::vector<ParameterInfo>& table = parameter_table(),
                      std::string command = "generate")
        : table_(&table), command_(std::move(command)) {}
    const std::vector<ParameterInfo>& table() const { return *table_; }

    // origin: where the value comes from, for messages ("--steps", "run.toml").
    void set(const std::string& name, const std::string& value, const std::string& origin);
    bool is_set(const std::string& name) const { return values_.count(name) != 0; }

    std::string text(const std::string& name) const;  // the value or the default
    int64_t integer(const std::string& name) const;
    double number(const std::string& name) const;
    bool flag(const std::string& name) const;
    bool given(const std::string& name) const { return !text(name).empty(); }

    // All values, defaults included; recipe_only: without what does not change the video.
    std::string to_json(bool recipe_only) const;
    std::string to_toml() const;
    // From a config file's text (an object of names and values); values already set stay.
    void merge_json(const std::string& json, const std::string& origin);

    ModelPaths model_paths() const;
    Request request() const;      // without the picture
    Placement placement() const;  // InputError when the device cannot be used
    // The same with precisions in place of "auto", as they follow from the device: what a recipe keeps, so that another
    // device makes the same video again to its own rounding.
    Settings with_precisions(const Placement& placement) const;

private:
    const ParameterInfo& info(const std::string& name) const;  // InputError with the nearest names

    const std::vector<ParameterInfo>* table_;
    std::string command_;
    std::map<std::string, std::string> values_;
};

// The reference page of all parameters, in Markdown.
std::string parameter_reference();

}  // namespace sana
