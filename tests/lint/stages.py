# SPDX-License-Identifier: Apache-2.0
"""The steps of a request in docs/ARCHITECTURE.md are the stages of the code, in the same order."""

import re

from tree import Finding, Skip

DOCUMENT = "docs/ARCHITECTURE.md"
CODE = "volmgr/pipeline.c"

_LIST = re.compile(r"^[ \t]*#[ \t]*define[ \t]+\w*STAGES?\w*\(\s*(\w+)\s*\)((?:[^\n]*\\\n)*[^\n]*)",
                   re.MULTILINE)
_STEP = re.compile(r"^[ \t]*\d+[.)]?[ \t]+[*`]*([A-Z][A-Z_]{2,})\b", re.MULTILINE)


def _stages_of_code(tree):
    for path in tree.select((".c", ".h"), ("volmgr",)):
        match = _LIST.search(tree.text(path))
        if match:
            item = re.compile(r"\b" + match.group(1) + r"\(\s*(?:\w*STAGE_)?(\w+)")
            return path, [name.upper() for name in item.findall(match.group(2))]
    return CODE, []


def check(tree):
    if CODE not in tree.paths:
        raise Skip(f"{CODE} does not exist")
    if DOCUMENT not in tree.paths:
        raise Skip(f"{DOCUMENT} does not exist")
    path, stages = _stages_of_code(tree)
    if not stages:
        return [Finding(path, 0, "no #define ...STAGES(X) that lists the stages")]
    steps = _STEP.findall(tree.text(DOCUMENT))
    if steps != stages:
        return [Finding(DOCUMENT, 0, f"its steps {' '.join(steps) or '(none)'} are not the stages "
                        f"of {path}: {' '.join(stages)}")]
    tree.notes.append(f"{len(stages)} stages: {' '.join(stages)}")
    return []


_PIPELINE = "#define PIPELINE_STAGES(X) \\\n    X(ADMIT, admit) \\\n    X(LOCK, lock)\n"

GOOD = {CODE: _PIPELINE, DOCUMENT: "# Path\n\n     1 ADMIT   validate\n     2 LOCK    range lock\n"}
BAD = [
    ({CODE: _PIPELINE, DOCUMENT: "1. ADMIT\n"}, "are not the stages"),
    ({CODE: _PIPELINE, DOCUMENT: "1. LOCK\n2. ADMIT\n"}, "are not the stages"),
    ({CODE: "int x;\n", DOCUMENT: "1. ADMIT\n"}, "no #define"),
]
