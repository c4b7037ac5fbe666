#!/usr/bin/env bash
# Builds everything with warnings as errors, runs all tests and the checks of layers, sizes and format.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/packages.sh"
install_packages
cd "$root"
python3 tools/check_layers.py
python3 tools/check_sizes.py
git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs clang-format --dry-run --Werror
echo "format holds"
cmake --preset dev >/dev/null
cmake --build --preset dev -j "$(nproc)"
diff <(build/dev/bin/sana generate --reference) docs/parameters.md || {
    echo "docs/parameters.md is not what the program says: build/dev/bin/sana generate --reference > docs/parameters.md"
    exit 1
}
ctest --test-dir build/dev --output-on-failure -j 2 "$@"
