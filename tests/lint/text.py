# SPDX-License-Identifier: Apache-2.0
"""What every text file keeps to: licence line, white space, no leftovers, no paths of a machine."""

import re

from tree import Finding

_CODE = (".c", ".h", ".py", ".sh", ".cmake", "CMakeLists.txt", ".service", ".socket")
_TEXT = _CODE + (".md", ".json", ".yml", ".yaml", ".conf", ".in", ".txt")
_INDENTED = (".c", ".h", ".py", ".sh", ".cmake", "CMakeLists.txt")

# Put together from parts, so that this file passes its own check.
_LEFTOVER = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3)) + r")\b")
_STUB = re.compile(r"\bnot (yet )?imple" + r"mented\b", re.IGNORECASE)
_PLACE = re.compile(r"(?<![\w.$}-])/(?:wo" + r"rk|ro" + r"ot|Us" + r"ers"
                    r"|ho" + r"me/(?!user\b))/\w+|/tmp/b" + r"-\w+|/tmp/br" + r"ief")


def _is_script(tree, path):
    name = path.rsplit("/", 1)[-1]
    return "." not in name and tree.bytes(path)[:2] == b"#!"


def _check_lines(path, text):
    findings = []
    for number, line in enumerate(text.split("\n"), 1):
        if line != line.rstrip():
            findings.append(Finding(path, number, "white space at the end of the line"))
        if "\t" in line and path.endswith(_INDENTED):
            findings.append(Finding(path, number, "a tab; indent with four spaces"))
        if _LEFTOVER.search(line):
            findings.append(Finding(path, number, "a note to oneself; do it or open an issue"))
        if _STUB.search(line) and path.endswith((".c", ".h")):
            findings.append(Finding(path, number, "a stub; what is not built is absent"))
        if _PLACE.search(line):
            findings.append(Finding(path, number, "an absolute path of somebody's machine"))
    if text and not text.endswith("\n"):
        findings.append(Finding(path, 0, "no newline at the end of the file"))
    if text.endswith("\n\n"):
        findings.append(Finding(path, 0, "blank lines at the end of the file"))
    return findings


def _check_licence(path, text):
    lines = text.split("\n")
    head = lines[1] if lines[0].startswith("#!") and len(lines) > 1 else lines[0]
    if "SPDX-License-Identifier: Apache-2.0" in head:
        return []
    return [Finding(path, 1, "the first line (after #!) must be SPDX-License-Identifier: "
                    "Apache-2.0 in a comment")]


def check(tree):
    findings = []
    for path in tree.paths:
        is_script = _is_script(tree, path)
        if path.startswith("tests/fuzz/corpus/") or not (path.endswith(_TEXT) or is_script):
            continue
        text = tree.text(path)
        findings += _check_lines(path, text)
        if path.endswith(_CODE) or is_script:
            findings += _check_licence(path, text)
    return findings


_SPDX = "/* SPDX-License-Identifier: Apache-2.0 */\n"

GOOD = {
    "io/a.c": _SPDX + "int a; /* in /var/lib/volmgr, /tmp or $HOME/x */\n",
    "scripts/run.sh": "#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\nx=/home/user/disk.img\n",
    "README.md": "# Volume manager\n",
}
BAD = [
    ({"io/a.c": "int a;\n"}, "SPDX"),
    ({".ci/run": "#!/bin/sh\nexit 0\n"}, "SPDX"),
    ({"io/a.c": _SPDX + "int a; \n"}, "white space at the end"),
    ({"io/a.c": _SPDX + "\tint a;\n"}, "a tab"),
    ({"io/a.c": _SPDX + "/* TO" + "DO: all */\n"}, "a note to oneself"),
    ({"io/a.c": _SPDX + "/* FIX" + "ME */\n"}, "a note to oneself"),
    ({"io/a.c": _SPDX + '/* not imple' + 'mented */\n'}, "a stub"),
    ({"README.md": "see /wo" + "rk/main/x\n"}, "absolute path"),
    ({"io/a.c": _SPDX + "/* /ro" + "ot/volmgr */\n"}, "absolute path"),
    ({"io/a.c": _SPDX + "int a;"}, "no newline"),
]
