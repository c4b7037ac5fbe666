// sana generate, sana reproduce.
#include <cstdio>
#include <memory>

#include "apps/config_file.h"
#include "apps/embedded_model.h"
#include "apps/recipe.h"
#include "apps/run_generation.h"
#include "io/text_file.h"
#include "io/video.h"

namespace sana::apps {

void add_generate(CLI::App& app, Common& common) {
    CLI::App* command =
        app.add_subcommand("generate", "Make a video from a prompt, and from a picture if one is given");
    command->footer(
        "Examples:\n"
        "  sana generate --prompt \"a small red circle moves left over a blue background\"\n"
        "  sana generate --model MODEL --prompt \"a red kite over the bay\" --out kite.mp4\n"
        "  sana generate --model MODEL --prompt \"she turns and smiles\" --image face.jpg --sampler euler "
        "--out smile.mp4\n"
        "  sana generate --config run.toml --seed 7 --out seven.mp4\n"
        "  sana generate --model MODEL --prompt x --dump-config > run.toml");
    auto settings = std::make_shared<Settings>();
    auto config = std::make_shared<std::string>();
    auto dump = std::make_shared<bool>(false), reference = std::make_shared<bool>(false);
    add_parameters(*command, *settings, {});
    command->add_option("--config", *config, "Parameters from a TOML or JSON file; the command line wins")
        ->type_name("FILE");
    command->add_flag("--dump-config", *dump, "Print the parameters in force as TOML and stop");
    command->add_flag("--reference", *reference, "Print the reference page of all parameters and stop");
    command->callback([=, &common] {
        if (*reference) {
            std::fputs(parameter_reference().c_str(), stdout);
            return;
        }
        if (!config->empty()) merge_config_file(*settings, *config);
        if (*dump) {
            // A model that is not there yet does not keep its configuration from being written.
            if (settings->given("model") ? is_folder(settings->text("model")) : !embedded_model().empty())
                take_defaults(*settings, ModelFolder(paths_of_model(*settings)));
            std::fputs(settings->to_toml().c_str(), stdout);
            return;
        }
        run_generation(*settings, common);
    });
}

void add_reproduce(CLI::App& app, Common& common) {
    CLI::App* command = app.add_subcommand("reproduce", "Make a video again from the recipe in its metadata");
    command->footer(
        "Parameters given here replace those of the recipe:\n  sana reproduce kite.mp4 --seed 8 --out "
        "kite8.mp4");
    auto settings = std::make_shared<Settings>();
    auto file = std::make_shared<std::string>();
    command->add_option("video", *file, "A video made by sana")->required()->type_name("FILE");
    add_parameters(*command, *settings, {});
    command->callback([=, &common] {
        std::optional<std::string> text = read_recipe(*file);
        check_input(text.has_value(), *file,
                    ": has no recipe in its metadata; it was not made by sana, or with --no-metadata");
        Recipe recipe = parse_recipe(*text, *file);
        settings->merge_json(recipe.settings.to_json(true), *file);
        if (!settings->is_set("out")) {
            size_t dot = file->rfind('.');
            bool named = dot != std::string::npos && file->find('/', dot) == std::string::npos;
            settings->set("out",
                          named ? file->substr(0, dot) + ".again" + file->substr(dot) : *file + ".again/",
                          "reproduce");
        }
        Console console(common);
        if (recipe.version != version_text())
            console.note(join("made by version ", recipe.version, ", this is ", version_text(),
                              ": small differences are possible"));
        for (const auto& [part, now] : ModelFolder(paths_of_model(*settings)).fingerprints()) {
            for (const auto& [name, then] : recipe.fingerprints) {
                if (name == part && then != now)
                    console.note(join("the ", part, " differs from the one that made this video"));
            }
        }
        if (settings->given("image") && !recipe.image_sha256.empty() &&
            file_exists(settings->text("image")) &&
            file_sha256(settings->text("image")) != recipe.image_sha256) {
            console.note("the picture differs from the one that made this video");
        }
        run_generation(*settings, common);
    });
}

}  // namespace sana::apps
