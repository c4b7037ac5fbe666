// The commands of the program: each adds itself to the command line and runs when it was chosen.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "pipeline/parameters.h"

namespace sana::apps {

// What all commands share.
struct Common {
    bool json = false;   // events as JSON lines on standard output
    bool quiet = false;  // no progress, no notes
};

void add_generate(CLI::App& app, Common& common);
void add_reproduce(CLI::App& app, Common& common);
void add_encode(CLI::App& app, Common& common);
void add_decode(CLI::App& app, Common& common);
void add_inspect(CLI::App& app, Common& common);
void add_convert(CLI::App& app, Common& common);
void add_init(CLI::App& app, Common& common);
void add_train(CLI::App& app, Common& common);
void add_quantize(CLI::App& app, Common& common);
void add_bench(CLI::App& app, Common& common);
void add_data(CLI::App& app, Common& common);
void add_eval(CLI::App& app, Common& common);
void add_version(CLI::App& app, Common& common);

// Options of the parameter table, by name; values go to settings. names empty: all of them.
void add_parameters(CLI::App& command, Settings& settings, const std::vector<std::string>& names);

// "0.1.0 (commit)"
std::string version_text();

// The whole program: exit code 0 done, 1 failed, 2 bad input, 3 cancelled.
int run(int argc, const char* const* argv);

}  // namespace sana::apps
