#!/usr/bin/env python3
"""Includes point down only (docs/architecture.md). Exits with 1 and the wrong arrows when they do not."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent / "src"

# layer -> what it may include besides itself
ALLOWED = {
    "core": set(),
    "ops": {"core"},
    "ops/cpu": {"core", "ops"},
    "ops/cuda": {"core", "ops"},
    "nn": {"core", "ops"},
    "text": {"core"},
    "io": {"core"},
    "models": {"core", "ops", "nn", "text"},
    "sampling": {"core", "ops"},
    "train": {"core", "ops", "nn", "text", "io", "models"},
    "pipeline": {"core", "ops", "nn", "text", "io", "models", "sampling"},
    "apps": {"core", "ops", "nn", "text", "io", "models", "sampling", "pipeline", "train", "bench"},
}
# Words that a layer must not know.
FORBIDDEN = {
    "models": r"cuda|DeviceType|#\s*ifdef",
    "nn": r"cuda|DeviceType|#\s*ifdef",
}


def layer_of(path):
    parts = path.parts
    two = "/".join(parts[:2])
    return two if two in ALLOWED else parts[0]


def main():
    wrong = []
    for file in sorted(ROOT.rglob("*")):
        if file.suffix not in {".h", ".cpp", ".cu", ".cuh"}:
            continue
        relative = file.relative_to(ROOT)
        layer = layer_of(relative)
        text = file.read_text()
        for number, line in enumerate(text.splitlines(), 1):
            match = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if match:
                target = layer_of(pathlib.PurePosixPath(match.group(1)))
                if target != layer and target not in ALLOWED.get(layer, set()):
                    wrong.append(f"src/{relative}:{number}: {layer} may not include {match.group(1)}")
            code = line.split("//")[0]
            if layer in FORBIDDEN and re.search(FORBIDDEN[layer], code):
                wrong.append(f"src/{relative}:{number}: {layer} must not mention this: {line.strip()}")
    # Models of different folders do not know one another.
    for file in sorted((ROOT / "models").glob("*/*")):
        for include in re.findall(r'#include "models/(\w+)/', file.read_text()):
            if include != file.parent.name:
                wrong.append(f"src/{file.relative_to(ROOT)}: a model may not include models/{include}")
    print("\n".join(wrong) if wrong else "layers hold")
    return 1 if wrong else 0


sys.exit(main())
