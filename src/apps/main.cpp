#include <unistd.h>

#include <cstdlib>

#include "apps/commands.h"

namespace {

// The OpenMP runtime's threads look for work for some 10 ms before they sleep. While another program has one of the cores,
// they then look in vain at most loops' ends: with two cores, one of them busy, a video took up to ten times as long. So
// they look for some 0.1 ms, which costs nothing measurable when the cores are free. The runtime reads this when it is
// loaded, before main: the program starts itself once more. Whoever set either variable has decided.
void wait_briefly(char** argv) {
    if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
    if (setenv("GOMP_SPINCOUNT", "3000", 0) != 0) return;
    (void)execv("/proc/self/exe", argv);  // returns only where it cannot: then threads wait as they did
}

}  // namespace

int main(int argc, char** argv) {
    wait_briefly(argv);
    return sana::apps::run(argc, argv);
}
