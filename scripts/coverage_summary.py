#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""coverage_summary.py BUILD_FOLDER LINES_FILE: adds up what gcov says of product code."""

import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "lint"))
sys.dont_write_bytecode = True

from tree import PRODUCT  # noqa: E402


def gcov(build):
    """The JSON documents that gcov makes of all notes files, run or not."""
    notes = [os.path.join(folder, name)
             for folder, _, names in os.walk(build) for name in names if name.endswith(".gcno")]
    for start in range(0, len(notes), 50):
        result = subprocess.run(["gcov", "--json-format", "--stdout", "--branch-probabilities",
                                 *notes[start:start + 50]], cwd=build, check=True,
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for line in result.stdout.splitlines():
            if line.strip():
                yield json.loads(line)


def collect(build):
    """path -> (line -> count, (line, number) -> branch count)."""
    files = {}
    for document in gcov(build):
        for entry in document["files"]:
            full = os.path.join(document.get("current_working_directory", build), entry["file"])
            path = os.path.relpath(os.path.realpath(full), ROOT)
            if path.split("/", 1)[0] not in PRODUCT:
                continue
            lines, branches = files.setdefault(path, ({}, {}))
            for line in entry["lines"]:
                number = line["line_number"]
                lines[number] = lines.get(number, 0) + line["count"]
                for index, branch in enumerate(line["branches"]):
                    if branch.get("throw"):
                        continue
                    key = (number, index)
                    branches[key] = branches.get(key, 0) + branch["count"]
    return files


def percent(counts):
    return 100.0 * sum(1 for count in counts if count) / len(counts) if counts else 100.0


def main():
    build, lines_path = os.path.abspath(sys.argv[1]), sys.argv[2]
    files = collect(build)
    folders = {}
    with open(lines_path, "w", encoding="utf-8") as report:
        for path, (lines, branches) in sorted(files.items()):
            folder = folders.setdefault(os.path.dirname(path), ([], []))
            folder[0].extend(lines.values())
            folder[1].extend(branches.values())
            print(f"{percent(list(lines.values())):6.1f} % of lines, "
                  f"{percent(list(branches.values())):5.1f} % of branches  {path}")
            missed = sorted(number for number, count in lines.items() if count == 0)
            report.write("".join(f"{path}:{number}: not reached\n" for number in missed))
    print()
    for name, (lines, branches) in sorted(folders.items()):
        print(f"{percent(lines):6.1f} % of lines, {percent(branches):5.1f} % of branches  {name}/")
    lines = [count for folder in folders.values() for count in folder[0]]
    branches = [count for folder in folders.values() for count in folder[1]]
    print(f"{percent(lines):6.1f} % of lines, {percent(branches):5.1f} % of branches  "
          f"everything ({len(lines)} lines)")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main()
