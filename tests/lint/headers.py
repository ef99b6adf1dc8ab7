# SPDX-License-Identifier: Apache-2.0
"""Every header compiles alone, is guarded, and documents what it declares."""

import concurrent.futures
import os
import re
import subprocess

import c_source
from tree import Finding, Skip

_FLAGS = ["-std=gnu17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE",
          "-D_FILE_OFFSET_BITS=64"]


def _compile(tree, path):
    command = [os.environ.get("CC", "gcc"), *_FLAGS, "-I", tree.root, "-x", "c", "-"]
    # Included rather than compiled, so that its guard is exercised by the second time.
    source = f'#include "{path}"\n#include "{path}"\n'
    result = subprocess.run(command, input=source, text=True, cwd=tree.root,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if result.returncode == 0:
        return []
    first = next((line for line in result.stdout.splitlines() if "error" in line), "?")
    return [Finding(path, 0, f"does not compile alone: {first.replace(tree.root + '/', '')}")]


def _check_comments(path, text):
    """A prototype stands in a block of lines (no blank line between) that has a comment."""
    findings = []
    blocks = []  # (first line, last line, has comment)
    start = None
    lines = text.split("\n") + [""]
    for number, line in enumerate(lines, 1):
        if line.strip() and start is None:
            start = number
        elif not line.strip() and start is not None:
            block = "\n".join(lines[start - 1:number - 1])
            blocks.append((start, number - 1, "/*" in block or "//" in block))
            start = None
    for item in c_source.items(c_source.code_only(text)):
        if not item.is_prototype():
            continue
        for first, last, has_comment in blocks:
            if first <= item.first_line <= last and not has_comment:
                findings.append(Finding(path, item.first_line,
                                        f"{item.name}() is declared without a word of comment"))
    return findings


def _check_guard(path, text, seen):
    match = re.search(r"^#ifndef (\w+_H)\n#define (\w+)\n", text, re.MULTILINE)
    if not match or match.group(1) != match.group(2):
        return [Finding(path, 0, "no include guard (#ifndef FOLDER_NAME_H, #define the same)")]
    guard = match.group(1)
    if guard in seen:
        return [Finding(path, 0, f"has the include guard of {seen[guard]}")]
    seen[guard] = path
    return []


def check(tree):
    headers = tree.select((".h",))
    findings = []
    guards = {}
    for path in headers:
        text = tree.text(path)
        findings += _check_guard(path, text, guards)
        try:
            if not path.endswith("_impl.h") and path in tree.product_c():
                findings += _check_comments(path, text)
        except c_source.Unbalanced as error:
            findings.append(Finding(path, error.args[0], "braces do not match"))
    try:
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for result in pool.map(lambda path: _compile(tree, path), headers):
                findings += result
    except FileNotFoundError as error:
        raise Skip("no C compiler") from error
    return findings


def _header(name, body):
    return f"#ifndef {name}_H\n#define {name}_H\n\n{body}\n#endif\n"


GOOD = {
    "io/a.h": _header("IO_A", "#include <stdint.h>\n\n/* What it does. */\nuint8_t a(int x);\n"
                      "int b(void);\n\nstatic inline int\nc(void)\n{\n    return b();\n}\n"),
    "io/b.h": _header("IO_B", '#include "io/a.h"\n\nstruct forward;\n'),
    "io/c_impl.h": _header("IO_C_IMPL", "int undocumented(void);\n"),
}
BAD = [
    ({"io/a.h": _header("IO_A", "/* x */\nuint8_t a(void);\n")}, "does not compile alone"),
    ({"io/a.h": "struct a {\n    int x;\n};\n"}, "no include guard"),
    ({"io/a.h": _header("IO_A", ""), "io/b.h": _header("IO_A", "")}, "has the include guard of"),
    ({"io/a.h": _header("IO_A", "/* Documented. */\nint a(void);\n\nint b(void);\n")},
     "b() is declared without"),
]
