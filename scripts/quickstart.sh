#!/usr/bin/env bash
# From a fresh Debian 12 to a video: installs packages, builds, generates.   scripts/quickstart.sh "a prompt" [out.mp4]
set -euo pipefail
prompt=${1:?'say what the video shows: scripts/quickstart.sh "a small red circle moves left over a blue background"'}
out=${2:-out.mp4}
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/packages.sh"
install_packages
cmake --preset release -S "$root" -DSANA_TESTS=OFF >/dev/null
cmake --build "$root/build/release" --target sana -j "$(nproc)"
sana="$root/build/release/bin/sana"
exec "$sana" generate --prompt "$prompt" --out "$out"
