# SPDX-License-Identifier: Apache-2.0
"""No dead files: every .c file is named by the CMakeLists.txt of its folder or of one above it.

A file that a function of cmake/ adds to targets is named there by its whole path.
"""

import os
import re

from tree import Finding


def _lists_above(tree, known, path):
    folder = os.path.dirname(path)
    while True:
        name = os.path.join(folder, "CMakeLists.txt")
        if name in known:
            yield folder, re.sub(r"#[^\n]*", "", tree.text(name))
        if not folder:
            return
        folder = os.path.dirname(folder)


def check(tree):
    known = set(tree.paths)
    findings = []
    functions = "\n".join(tree.text(path) for path in tree.select((".cmake",), ("cmake",)))
    for path in tree.select((".c",)):
        names = {os.path.basename(path)[:-2]}
        is_built = "/" + path in functions
        for folder, text in _lists_above(tree, known, path):
            names.add(os.path.relpath(path, folder or ".")[:-2])
            words = set(re.findall(r"[\w./-]+", text))
            if any(name in words or name + ".c" in words for name in names):
                is_built = True
            if "GLOB" in words:
                findings.append(Finding(f"{folder}/CMakeLists.txt", 0,
                                        "file(GLOB) hides what is built; name the files"))
        if not is_built:
            findings.append(Finding(path, 0, "is named in no CMakeLists.txt: dead code"))
    return findings


GOOD = {
    "io/CMakeLists.txt": "volmgr_library(io SOURCES a.c)\n", "io/a.c": "\n",
    "tests/unit/io/CMakeLists.txt": "foreach(name test_a test_b)\n", "tests/unit/io/test_a.c": "\n",
    "targets/CMakeLists.txt": "volmgr_library(nbd SOURCES nbd/c.c)\n", "targets/nbd/c.c": "\n",
    "cmake/library.cmake": "add_executable(a ${PROJECT_SOURCE_DIR}/tests/fuzz/main.c)\n",
    "tests/fuzz/main.c": "\n",
}
BAD = [
    ({"io/CMakeLists.txt": "volmgr_library(io SOURCES a.c)\n", "io/b.c": "\n"}, "dead code"),
    ({"io/CMakeLists.txt": "# a.c\n", "io/a.c": "\n"}, "dead code"),
    ({"io/CMakeLists.txt": "file(GLOB s *.c)\n", "io/a.c": "\n"}, "hides what is built"),
]
