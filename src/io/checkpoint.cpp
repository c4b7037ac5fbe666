#include "io/checkpoint.h"

#include <filesystem>
#include <system_error>

#include "core/check.h"
#include "io/describe.h"
#include "io/mmap.h"
#include "io/pth.h"
#include "io/safetensors.h"
#include "io/text_file.h"

namespace sana {

namespace {

// Whether the folder holds <base>...safetensors...; a folder that cannot be listed holds nothing here.
bool holds(const std::string& folder, const std::string& base) {
    std::error_code error;
    for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end;
         it.increment(error)) {
        std::string name = it->path().filename().string();
        if (name.starts_with(base) && name.find(".safetensors") != std::string::npos) return true;
    }
    return false;
}

Checkpoint read_any_folder(const std::string& folder) {
    check_input(
        !file_exists((std::filesystem::path(folder) / "model_index.json").string()), folder,
        ": is the folder of a whole pipeline (model_index.json): give one of its parts, for instance ",
        (std::filesystem::path(folder) / "transformer").string());
    // The names that diffusers and transformers give; read_folder explains what is there when neither is.
    bool transformers = !holds(folder, "diffusion_pytorch_model") && holds(folder, "model");
    return read_folder(folder, transformers ? "model" : "diffusion_pytorch_model");
}

}  // namespace

Checkpoint read_checkpoint(const std::string& path) {
    if (is_folder(path)) return read_any_folder(path);
    std::string start(MappedFile::open(path)->text().substr(0, 512));
    if (looks_like_safetensors(start)) return read_safetensors(path);
    if (start.starts_with("PK\x03\x04")) return read_pth(path);
    if (start.starts_with("{") && path.ends_with(".json")) return read_shard_index(path);
    std::string foreign = describe_foreign(start);
    if (!foreign.empty()) fail_input(path, ": this is ", foreign);
    fail_input(path, ": is neither a .safetensors nor a .pth file (it begins with ",
               in_quotes(start.substr(0, 16)), "): check the path, or download it again");
}

}  // namespace sana
