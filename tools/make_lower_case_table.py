#!/usr/bin/env python3
"""Writes src/text/lower_case_table.h: Unicode lower case as runs, from the Unicode data of this Python."""
import sys
import unicodedata

runs = []
for code in range(0x110000):
    if 0xD800 <= code < 0xE000:
        continue
    lower = chr(code).lower()
    if len(lower) != 1 or ord(lower) == code:
        continue
    delta = ord(lower) - code
    for step in (1, 2):
        if runs and runs[-1][3] == delta and code - runs[-1][1] == step and runs[-1][2] in (0, step):
            runs[-1][1], runs[-1][2] = code, step
            break
    else:
        runs.append([code, code, 0, delta])

out = open(sys.argv[1] if len(sys.argv) > 1 else "src/text/lower_case_table.h", "w")
out.write(f"""// Unicode {unicodedata.unidata_version} lower case of single code points, written by tools/make_lower_case_table.py.
#pragma once

#include <cstdint>

namespace sana {{

// Every `step`-th code point of first..last maps to itself + delta.
struct LowerCaseRun {{
    int32_t first, last, step, delta;
}};

// clang-format off
inline constexpr LowerCaseRun kLowerCaseRuns[] = {{
""")
for i in range(0, len(runs), 4):
    out.write("    " + " ".join("{0x%x, 0x%x, %d, %d}," % (a, b, s or 1, d) for a, b, s, d in runs[i:i + 4]) + "\n")
out.write("};\n// clang-format on\n\n}  // namespace sana\n")
