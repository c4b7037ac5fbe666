#!/usr/bin/env python3
"""Files stay readable: at most 500 lines of host code, 400 of a kernel file; binary files stay under 60 MB in all."""
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CEILING = {".cu": 400, ".cuh": 400}
SOURCE = {".h", ".cpp", ".cu", ".cuh", ".py", ".cmake"}
GENERATED = {"src/text/lower_case_table.h"}
BINARY_BYTES = 60_000_000


def main():
    files = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True)
    wrong, lengths, binary = [], [], 0
    for name in filter(None, files.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file():
            continue
        if path.suffix in SOURCE and name not in GENERATED:
            lines = path.read_text().count("\n")
            lengths.append(lines)
            if lines > CEILING.get(path.suffix, 500):
                wrong.append(f"{name}: {lines} lines, at most {CEILING.get(path.suffix, 500)}")
        elif name.startswith(("tests/goldens/", "models/")):
            binary += path.stat().st_size
        elif path.suffix in {".safetensors", ".pth", ".tgz", ".bin", ".mp4"}:
            wrong.append(f"{name}: binary files belong under tests/goldens or models/embedded")
    if binary > BINARY_BYTES:
        wrong.append(f"binary files: {binary} bytes, at most {BINARY_BYTES}")
    lengths.sort()
    print("\n".join(wrong) if wrong else f"sizes hold: {len(lengths)} files, median {lengths[len(lengths) // 2]} lines, longest {lengths[-1]}")
    return 1 if wrong else 0


sys.exit(main())
