#include "apps/commands.h"

int main(int argc, char** argv) { return sana::apps::run(argc, argv); }
