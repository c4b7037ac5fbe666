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
if [ -f "$root/models/embedded/model_index.json" ]; then
    exec "$sana" generate --prompt "$prompt" --out "$out"
fi
model="$root/build/tiny-model"
if [ ! -f "$model/model_index.json" ]; then
    rm -rf "$model"
    "$sana" --quiet init --preset tiny --random --out "$model"
fi
echo "No trained model is here (models/embedded; recipes/embedded trains it): the video comes from a small random model and shows noise."
echo "docs/models.md says how to get the official weights."
"$sana" generate --model "$model" --prompt "$prompt" --width 256 --height 160 --frames 33 --steps 10 --out "$out"
