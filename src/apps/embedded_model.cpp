#include "apps/embedded_model.h"

#include <cstdlib>
#include <filesystem>

#include "io/text_file.h"
#include "train/world/caption.h"

namespace sana::apps {

namespace fs = std::filesystem;

namespace {

std::string program_folder() {
    std::error_code error;
    return fs::read_symlink("/proc/self/exe", error).parent_path().string();
}

}  // namespace

std::string find_embedded_model(const std::string& folder) {
    fs::path at = folder;
    for (int up = 0; up < 5; ++up) {
        for (const char* place : {"share/sana/embedded", "models/embedded"}) {
            std::string path = (at / place).string();
            if (file_exists(path + "/model_index.json")) return path;
        }
        if (at == at.parent_path()) break;
        at = at.parent_path();
    }
    return {};
}

std::string embedded_model() {
    if (const char* named = std::getenv("SANA_EMBEDDED_MODEL"))
        return file_exists(std::string(named) + "/model_index.json") ? named : "";
    return find_embedded_model(program_folder());
}

ModelPaths paths_of_model(const Settings& settings) {
    ModelPaths paths = settings.model_paths();
    if (!paths.folder.empty()) return paths;
    paths.folder = embedded_model();
    if (paths.folder.empty()) {
        const char* named = std::getenv("SANA_EMBEDDED_MODEL");
        std::string looked = named != nullptr ? join(named, ", which SANA_EMBEDDED_MODEL names, is none")
                                              : join("neither share/sana/embedded nor models/embedded is in ",
                                                     program_folder(), " or above it");
        fail_input("no model given, and there is no embedded model: ", looked,
                   ". Name a model folder with --model FOLDER: docs/models.md says where to get one, "
                   "recipes/embedded/README.md how to train the embedded one, sana init makes a random one");
    }
    return paths;
}

void take_defaults(Settings& settings, const ModelFolder& model) {
    for (const auto& [name, value] : model.defaults)
        if (!settings.is_set(name))
            settings.set(name, value, model.paths().folder + "/model_index.json: " + name);
}

std::string advice(const ModelFolder& model, const std::string& prompt) {
    return model.trained_on == "drawn world" ? world::advice(prompt) : std::string();
}

}  // namespace sana::apps
