#include <yaml-cpp/yaml.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "text/prompt.h"

namespace sana {

namespace {

std::string joined(const std::vector<std::string>& lines) {
    std::string out;
    for (size_t i = 0; i < lines.size(); ++i) out += (i > 0 ? "\n" : "") + lines[i];
    return out;
}

std::string from_yaml(const std::string& text, const std::string& path) {
    try {
        YAML::Node node = YAML::Load(text)["text_encoder"]["chi_prompt"];
        check_input(node.IsDefined() && (node.IsSequence() || node.IsScalar()), path,
                    ": has no text_encoder.chi_prompt; a YAML of the official repository has it");
        if (node.IsScalar()) return node.as<std::string>();
        return joined(node.as<std::vector<std::string>>());
    } catch (const YAML::Exception& error) {
        fail_input(path, ": cannot be read as YAML with text_encoder.chi_prompt: ", error.what());
    }
}

std::string from_json(const std::string& text, const std::string& path) {
    nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
    if (json.is_object() && json.contains("prompt_instruction"))
        json = nlohmann::json(json["prompt_instruction"]);
    if (json.is_string()) return json.get<std::string>();
    bool strings =
        json.is_array() && std::all_of(json.begin(), json.end(), [](auto& line) { return line.is_string(); });
    check_input(strings, path, ": a list of strings, or an object with prompt_instruction, is expected");
    return joined(json.get<std::vector<std::string>>());
}

}  // namespace

PromptTemplate load_prompt_template(const std::string& path) {
    constexpr int64_t kMost = 1 << 20;
    std::ifstream in(path, std::ios::binary);
    check_input(in.good() && !std::filesystem::is_directory(path), path,
                ": the prompt template cannot be read");
    std::string text(static_cast<size_t>(kMost) + 1, '\0');
    in.read(text.data(), kMost + 1);
    check_input(in.gcount() <= kMost, path, ": is larger than a prompt template may be (1 MiB)");
    text.resize(static_cast<size_t>(in.gcount()));
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
