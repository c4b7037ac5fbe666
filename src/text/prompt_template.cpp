#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "text/prompt.h"

namespace sana {

namespace {

constexpr size_t kMostBytes = 1 << 20;

// The lines of an instruction, joined by newlines.
class Joined {
public:
    explicit Joined(const std::string& path) : path_(path) {}

    void add(const std::string& line) {
        if (!first_) text_ += '\n';
        first_ = false;
        text_ += line;
        // A YAML file can repeat a long line by reference, so that it is larger than its file.
        check_input(text_.size() <= kMostBytes, path_, ": the instruction is longer than ", kMostBytes,
                    " bytes");
    }
    const std::string& text() const { return text_; }

private:
    const std::string& path_;
    std::string text_;
    bool first_ = true;
};

std::string from_yaml(const std::string& text, const std::string& path) {
    try {
        // The node under a key, or an empty one: asking a missing node for its type throws.
        auto under = [](const YAML::Node& node, const char* key) {
            const YAML::Node found = node.IsMap() ? node[key] : YAML::Node();
            return found.IsDefined() ? found : YAML::Node();
        };
        const YAML::Node lines = under(under(YAML::Load(text), "text_encoder"), "chi_prompt");
        check_input(
            lines.IsSequence() || lines.IsScalar(), path,
            ": has no text_encoder.chi_prompt that is a list of strings; a YAML of the official repository "
            "has it");
        Joined joined(path);
        if (lines.IsScalar()) return lines.Scalar();
        for (const YAML::Node& line : lines) {
            check_input(line.IsScalar(), path, ": line ", line.Mark().line + 1,
                        ": an entry of text_encoder.chi_prompt is not a string; put it in quotes");
            joined.add(line.Scalar());
        }
        return joined.text();
    } catch (const YAML::Exception& error) {
        fail_input(path, ": cannot be read as YAML: ", error.what());
    }
}

std::string from_json(const std::string& text, const std::string& path) {
    const nlohmann::json file = nlohmann::json::parse(text, nullptr, false);
    check_input(!file.is_discarded(), path, ": is not valid JSON");
    const nlohmann::json* lines = &file;
    for (const char* key : {"prompt_instruction", "instruction"}) {
        if (auto it = file.find(key); it != file.end()) lines = &*it;
    }
    auto is_string = [](const nlohmann::json& line) { return line.is_string(); };
    check_input(
        lines->is_string() || (lines->is_array() && std::all_of(lines->begin(), lines->end(), is_string)),
        path, ": a list of strings is expected, alone or as \"prompt_instruction\" of an object");
    Joined joined(path);
    if (lines->is_string()) return lines->get<std::string>();
    for (const nlohmann::json& line : *lines) joined.add(line.get<std::string>());
    return joined.text();
}

}  // namespace

PromptTemplate load_prompt_template(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    std::error_code ignored;
    check_input(in.good() && !std::filesystem::is_directory(path, ignored), path,
                ": the prompt template cannot be read");
    std::string text(kMostBytes + 1, '\0');
    in.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(in.gcount()));
    check_input(text.size() <= kMostBytes, path, ": is larger than a prompt template may be (1 MiB)");
    std::string extension = std::filesystem::path(path).extension().string();
    PromptTemplate out;
    out.source = path;
    if (extension == ".yaml" || extension == ".yml") {
        out.instruction = from_yaml(text, path);
    } else if (extension == ".json") {
        out.instruction = from_json(text, path);
    } else {
        if (!text.empty() && text.back() == '\n') text.pop_back();
        out.instruction = text;
    }
    return out;
}

}  // namespace sana
