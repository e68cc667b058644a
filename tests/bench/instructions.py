#!/usr/bin/python3
"""Counts instructions per packet of the fast path, function by function, with callgrind.

    instructions.py FASTPATH [--packets N] [--lines] [OPTION OF FASTPATH...]

What the compiler inlined is found by the line numbers of the debug information, so the program wants -g; and a processor that
valgrind knows, which has no AVX-512. --lines shows the most expensive lines as well.
"""

import re
import subprocess
import sys
import tempfile
from collections import Counter
from functools import lru_cache
from pathlib import Path



@lru_cache(None)
def functions(path):
    """[(first line, last line, name)] of a C file."""
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []
    found, start = [], None
    for number, line in enumerate(lines, 1):
        if line.rstrip() == "{":
            start = number
            head = []
            for above in reversed(lines[max(0, number - 12):number - 1]):
                if not above.strip() or above.startswith(("}", "/", " *", "#")):
                    break
                head.insert(0, above.strip())
                # DPDK has the return type on a line of its own, above the name.
                if re.match(r"\w[\w\s*]*?\b\w+\s*\(", above) and not above.startswith("__"):
                    break
            name = re.search(r"(\w+)\s*\(", re.sub(r"__attribute__\s*\(\(.*?\)\)", "", " ".join(head)))
            name = name.group(1) if name else "?"
        elif line.startswith("}") and start:
            found.append((start - 8, number, name))
            start = None
    return found


def function_at(path, line):
    best = None
    for first, last, name in functions(path):
        if first <= line <= last:
            best = name
            if first + 8 <= line:
                return name
    return best or "?"


def read_profile(path):
    """Counter of instructions by (file, line, function that the code is in)."""
    names, cost, file, fn, line, skip = {}, Counter(), "", "", 0, False

    def name(text):
        number, _, rest = text.partition(" ")
        if rest:
            names[number] = rest
        return names.get(number, number)

    files = {}

    def file_name(text):
        number, _, rest = text.partition(" ")
        if rest:
            files[number] = rest
        return files.get(number, number)

    for text in open(path):
        text = text.rstrip("\n")
        if text.startswith("fl="):
            file = file_name(text[3:])
        elif text.startswith(("fi=", "fe=")):
            file = file_name(text[3:])
        elif text.startswith("fn="):
            fn = name(text[3:])
        elif text.startswith(("cfi=", "cfl=")):
            file_name(text[4:])
        elif text.startswith("cfn="):
            name(text[4:])
        elif text.startswith("calls="):
            skip = True  # the next line is the cost of the callee
        elif re.match(r"[+*\-\d]", text):
            where, *counts = text.split()
            if where.startswith("+"):
                line += int(where[1:])
            elif where.startswith("-"):
                line -= int(where[1:])
            elif where != "*":
                line = int(where)
            if skip:
                skip = False
            elif counts:
                cost[(file, line, fn)] += int(counts[0])
    return cost


def count(program, packets, options):
    """(instructions per packet, Counter by (file, function), Counter by (file, line))"""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        out = folder + "/callgrind"
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=" + out, "--collect-atstart=no", "--toggle-collect=measured",
                   "--compress-strings=yes", str(program), "--repeat", "1", "--packets", str(packets), *options]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise SystemExit(f"instructions: {' '.join(command)} failed:\n{done.stdout}")
        profile = read_profile(out)
    packets = (packets + 31) // 32 * 32
    by_function, by_line = Counter(), Counter()
    for (file, line, fn), n in profile.items():
        known = file and file != "???"
        inner = function_at(file, line) if known else fn
        short = re.sub(r".*/(dpdk|ofproto|pipeline|vswitch|vhost|bench)/", r"\1/", file) if known else "library"
        by_function[(short, fn if inner == "?" else inner)] += n / packets
        by_line[(short, line)] += n / packets
    return sum(profile.values()) / packets, by_function, by_line


def main(arguments):
    if not arguments or arguments[0].startswith("-"):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    program, packets, options, lines = arguments[0], 20000, arguments[1:], False
    if "--packets" in options:
        at = options.index("--packets")
        packets = int(options[at + 1])
        del options[at:at + 2]
    if "--lines" in options:
        options.remove("--lines")
        lines = True
    total, by_function, by_line = count(program, packets, options)
    print(f"{total:8.1f}  instructions per packet")
    for (file, fn), n in by_function.most_common():
        if n >= 0.3:
            print(f"{n:8.1f}  {fn} ({file})")
    if lines:
        print("the lines:")
        for (file, line), n in by_line.most_common(60):
            print(f"{n:8.1f}  {file}:{line}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
