# SPDX-License-Identifier: Apache-2.0
"""Lengths of files, functions, macros and lines. There is no list of exceptions."""

import c_source
from tree import Finding

FILE_LINES_MAX = 1000
FUNCTION_LINES_MAX = 70  # from the line of the return type to the closing brace
MACRO_LINES_MAX = 70
LINE_COLUMNS_MAX = 100

_CODE = (".c", ".h", ".py", ".sh", ".cmake", "CMakeLists.txt")


def _check_functions(tree, path, lengths):
    findings = []
    text = tree.text(path)
    try:
        found = c_source.functions(text)
    except c_source.Unbalanced as error:
        return [Finding(path, error.args[0], "braces do not match without the preprocessor; "
                        "put whole statements into both branches of a conditional")]
    for function in found:
        lines = function.last_line - function.first_line + 1
        lengths.append(lines)
        if lines > FUNCTION_LINES_MAX:
            findings.append(Finding(path, function.first_line,
                                    f"{function.name}() has {lines} lines, more than "
                                    f"{FUNCTION_LINES_MAX}"))
    for name, line, lines in c_source.macros(text):
        is_list = name.endswith(("_LIST", "_STAGES", "_STATES", "_TABLE"))
        if lines > MACRO_LINES_MAX and not is_list:
            findings.append(Finding(path, line, f"macro {name} has {lines} lines, more than "
                                    f"{MACRO_LINES_MAX}"))
    return findings


def _percentile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0


def check(tree):
    findings = []
    function_lengths = []
    file_lengths = []
    for path in tree.paths:
        is_script = path in tree.scripts() if "." not in path.rsplit("/", 1)[-1] else False
        if not path.endswith(_CODE) and not is_script:
            continue
        lines = tree.text(path).splitlines()
        file_lengths.append(len(lines))
        if len(lines) > FILE_LINES_MAX:
            findings.append(Finding(path, 0, f"{len(lines)} lines, more than {FILE_LINES_MAX}"))
        for number, line in enumerate(lines, 1):
            if len(line) > LINE_COLUMNS_MAX:
                findings.append(Finding(path, number, f"{len(line)} columns, more than "
                                        f"{LINE_COLUMNS_MAX}"))
        if path.endswith((".c", ".h")):
            findings += _check_functions(tree, path, function_lengths)
    if function_lengths:
        tree.notes.append(
            f"{len(function_lengths)} functions, longest {max(function_lengths)}, 95 % below "
            f"{_percentile(function_lengths, 0.95) + 1} lines; longest file {max(file_lengths)}")
    return findings


def _function(lines, head="static int\nf(void)\n"):
    return head + "{\n" + "    g();\n" * (lines - 2 - head.count("\n")) + "}\n"


GOOD = {
    "volmgr/a.c": "DECLARE(16)\nDECLARE(32)\n" + _function(70)
                  + "struct s {\n" + "    int x;\n" * 80 + "};\n"
                  + "static const int t[] = {\n" + "    1,\n" * 80 + "};\n",
    "volmgr/b.c": "x();\n" * 1000,
    "volmgr/c.c": _function(70, "int\nf(char *a, int (*b)(void))\n")
                  + "int\ng(void)\n{\n    char c = '{';\n    return *\"}\" + c; /* } */\n}\n",
}
BAD = [
    ({"volmgr/a.c": _function(71)}, "f() has 71 lines"),
    ({"volmgr/a.c": "int f(int a,\n      int b) {\n" + "    g();\n" * 68 + "}\n"},
     "f() has 71 lines"),
    ({"tests/unit/a.c": "int\ng(void)\n{\n}\n" + _function(90)}, "f() has 90 lines"),
    ({"base/a.h": "#define BIG(x) \\\n" + "    x; \\\n" * 80 + "    x\n"}, "macro BIG"),
    ({"cli/a.c": "x();\n" * 1001}, "1001 lines"),
    ({"cli/a.c": "/* " + "x" * 98 + " */\n"}, "104 columns"),
    ({"cli/a.c": "int\nf(void)\n{\n    {\n}\n"}, "braces do not match"),
]
