// sana version.
#include <cstdio>

#include "apps/commands.h"
#include "core/parallel.h"

namespace sana::apps {

std::string version_text() { return SANA_VERSION " (" SANA_COMMIT ")"; }

void add_version(CLI::App& app, Common& common) {
    CLI::App* command = app.add_subcommand("version", "Say which program this is and what it was built with");
    command->callback([&common] {
        const char* build = SANA_BUILD;
        if (common.json) {
            std::printf(
                "{\"event\": \"version\", \"version\": \"%s\", \"commit\": \"%s\", \"build\": \"%s\", "
                "\"threads\": %d}\n",
                SANA_VERSION, SANA_COMMIT, build, threads());
        } else {
            std::printf("sana %s\nbuilt with %s; %d threads here\n", version_text().c_str(), build,
                        threads());
        }
    });
}

}  // namespace sana::apps
