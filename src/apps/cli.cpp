#include <cstdio>
#include <exception>
#include <new>

#include "apps/console.h"

namespace sana::apps {

namespace {

// One clear error: text on standard error, or an event for programs.
int failed(const Common& common, int code, const std::string& message) {
    if (common.json) {
        std::printf("{\"event\": \"error\", \"code\": %d, \"message\": %s}\n", code,
                    json_string(message).c_str());
    } else {
        std::fprintf(stderr, "%s: %s\n", code == 3 ? "stopped" : "error", message.c_str());
    }
    return code;
}

}  // namespace

void add_parameters(CLI::App& command, Settings& settings, const std::vector<std::string>& names) {
    for (const ParameterInfo& p : settings.table()) {
        if (!names.empty() && std::find(names.begin(), names.end(), p.name) == names.end()) continue;
        std::string help = p.help;
        if (!p.choices.empty()) {
            std::string list;
            for (const std::string& choice : p.choices) list += (list.empty() ? "" : ", ") + choice;
            help += " [" + list + "]";
        }
        if (!p.fallback.empty() && p.type != ParameterType::flag)
            help += " (default " + p.fallback + (p.unit.empty() ? "" : " " + p.unit) + ")";
        std::string flag = "--" + p.name;
        CLI::Option* option = nullptr;
        if (p.type == ParameterType::flag) {
            option = command.add_flag_callback(
                flag, [&settings, name = p.name, flag] { settings.set(name, "true", flag); }, help);
        } else {
            option = command.add_option_function<std::string>(
                flag,
                [&settings, name = p.name, flag](const std::string& value) {
                    settings.set(name, value, flag);
                },
                help);
            const char* type = p.type == ParameterType::integer  ? "N"
                               : p.type == ParameterType::number ? "X"
                               : p.type == ParameterType::file   ? "PATH"
                               : p.type == ParameterType::device ? "DEVICE"
                                                                 : "TEXT";
            option->type_name(type);
            if (p.name == "lora") {
                option->join(',');  // given several times: several files
            } else {
                option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
            }
        }
        option->group(p.group);
    }
}

int run(int argc, const char* const* argv) {
    Common common;
    CLI::App app{"sana: SANA-Video, from a prompt to a video"};
    app.require_subcommand(1);
    app.fallthrough();
    app.add_flag("--json", common.json, "Events as JSON lines on standard output, for programs");
    app.add_flag("--quiet", common.quiet, "No progress and no notes");
    app.footer(
        "sana COMMAND --help explains a command. Exit codes: 0 done, 1 failed, 2 bad input, 3 cancelled.");
    add_generate(app, common);
    add_reproduce(app, common);
    add_encode(app, common);
    add_decode(app, common);
    add_inspect(app, common);
    add_convert(app, common);
    add_init(app, common);
    add_train(app, common);
    add_quantize(app, common);
    add_bench(app, common);
    add_data(app, common);
    add_eval(app, common);
    add_version(app, common);
    catch_interrupt();
    // --json may stand after the word that fails to parse.
    for (int i = 1; i < argc; ++i) common.json = common.json || std::string(argv[i]) == "--json";
    try {
        app.parse(argc, argv);
        return 0;
    } catch (const CLI::CallForHelp& help) {
        return app.exit(help);
    } catch (const CLI::CallForAllHelp& help) {
        return app.exit(help);
    } catch (const CLI::ParseError& error) {
        return failed(common, 2, std::string(error.what()) + "; sana --help and sana COMMAND --help explain");
    } catch (const InputError& error) {
        return failed(common, 2, error.what());
    } catch (const Cancelled& error) {
        return failed(common, 3, error.what());
    } catch (const std::bad_alloc&) {
        return failed(common, 1, "out of memory; try a smaller size, fewer frames or --precision bf16");
    } catch (const std::exception& error) {
        return failed(common, 1, error.what());
    }
}

}  // namespace sana::apps
