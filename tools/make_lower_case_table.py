#!/usr/bin/env python3
"""Writes src/text/lower_case_table.h from the Unicode data of this Python: the lower case of single code points, and
the two properties that decide about a final sigma. usage: make_lower_case_table.py [FILE]"""
import sys
import unicodedata

CODES = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
SIGMA, FINAL = "\u03a3", "\u03c2"


def lower_runs():
    runs = []  # first, last, step (0: a single one), delta
    for code in CODES:
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
    return [(a, b, s or 1, d) for a, b, s, d in runs]


def ranges(holds):
    out = []
    for code in CODES:
        if not holds(chr(code)):
            continue
        if out and out[-1][1] == code - 1:
            out[-1][1] = code
        else:
            out.append([code, code])
    return out


def final_behind(text):
    return (text + SIGMA).lower()[-1] == FINAL


# str.lower() looks through case-ignorable code points for a cased one; its answers give both properties away.
def cased(c):
    return final_behind(c)


def case_ignorable(c):
    return final_behind("a" + c) and not cased(c)


def table(rows, form, per_line):
    cells = [form % tuple(row) for row in rows]
    return "".join("    " + " ".join(cells[i:i + per_line]) + "\n" for i in range(0, len(cells), per_line))


out = open(sys.argv[1] if len(sys.argv) > 1 else "src/text/lower_case_table.h", "w")
out.write(f"""// Unicode {unicodedata.unidata_version} tables for lower case, written by tools/make_lower_case_table.py.
#pragma once

#include <cstdint>

namespace sana {{

// Every `step`-th code point of first..last maps to itself + delta.
struct LowerCaseRun {{
    int32_t first, last, step, delta;
}};

struct CodeRange {{
    int32_t first, last;
}};

// clang-format off
inline constexpr LowerCaseRun kLowerCaseRuns[] = {{
{table(lower_runs(), "{0x%x, 0x%x, %d, %d},", 4)}}};

// Letters with a case that are not case-ignorable.
inline constexpr CodeRange kCased[] = {{
{table(ranges(cased), "{0x%x, 0x%x},", 6)}}};

// Marks and signs inside a word that the search for a neighbouring letter passes over.
inline constexpr CodeRange kCaseIgnorable[] = {{
{table(ranges(case_ignorable), "{0x%x, 0x%x},", 6)}}};
// clang-format on

}}  // namespace sana
""")
