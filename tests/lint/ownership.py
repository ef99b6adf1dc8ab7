# SPDX-License-Identifier: Apache-2.0
"""How many public functions of reactor-owned code begin with an owner assertion: a ratio."""

import re

import c_source

# Folders whose state belongs to a reactor.
FOLDERS = ("io", "volmgr", "replication", "targets")
_ASSERTION = re.compile(r"ASSERT\w*\s*\([^;]*reactor_self\s*\(|\bASSERT_ON_REACTOR\s*\("
                        r"|\bassert_(?:on_)?\w*(?:reactor|owner)\w*\s*\(")
STATEMENTS_MAX = 6  # it may stand behind a few declarations


def measure(tree):
    """folder -> [functions with the assertion, functions]."""
    counts = {}
    for path in tree.select((".c",), FOLDERS):
        code = c_source.code_only(tree.text(path))
        try:
            found = c_source.items(code)
        except c_source.Unbalanced:
            continue
        for item in found:
            if not item.is_function() or item.is_static():
                continue
            body = code[item.body[0] + 1:item.body[1]]
            head = ";".join(body.split(";")[:STATEMENTS_MAX])
            count = counts.setdefault(path.split("/", 1)[0], [0, 0])
            count[0] += 1 if _ASSERTION.search(head) else 0
            count[1] += 1
    return counts


def check(tree):
    for folder, (asserted, total) in sorted(measure(tree).items()):
        tree.notes.append(f"{folder}/: {asserted} of {total} public functions begin with an owner "
                          f"assertion ({100 * asserted // total} %)")
    return []


_OWNED = {
    "volmgr/a.c": "int\nf(struct r *r)\n{\n    int a = 1;\n    ASSERT_ON_REACTOR(r);\n"
                  "    return a;\n}\nint\ng(void)\n{\n    return 1;\n}\n"
                  "static int\nh(void)\n{\n    return 1;\n}\n"
                  "void\ni(struct r *r)\n{\n    ASSERT(r == reactor_self());\n}\n",
}


def self_test_tree(make_tree):
    found = measure(make_tree(_OWNED))
    return [] if found == {"volmgr": [2, 3]} else [f"counted {found} instead of 2 of 3"]
