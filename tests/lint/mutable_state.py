# SPDX-License-Identifier: Apache-2.0
"""No variable outlives a call and can change: a daemon is a struct; several live in one process."""

import re

import c_source
from tree import Finding

# log.c: the level, written by main() before threads start. reactor.c: which reactor this thread is.
ALLOWED = re.compile(r"daemon/.*|base/log\.c")
THREAD_LOCAL_ALLOWED = re.compile(r"io/reactor\.c")

_LOCAL_STATIC = re.compile(r"(?<=[;{}:])\s*(static\b[^;{=]*)[;={]")


def is_constant(declaration):
    """Whether the declared object itself (not only what it points to) is const."""
    text = re.sub(r"\[[^\]]*\]", "", declaration)
    pointer_to_function = re.search(r"\(\s*\*([^)]*)\)", text)
    if pointer_to_function:
        return "const" in pointer_to_function.group(1).split()
    if "*" in text:
        return "const" in text.rsplit("*", 1)[1].split()
    return "const" in text.split()


def _variable(item):
    """The declaration of a variable at file scope, or None."""
    header = item.header.strip()
    if item.is_function() or item.is_prototype():
        return None
    if not header or header.startswith(("typedef", "extern", "_Static_assert", "static_assert")):
        return None
    declaration = header.split("=", 1)[0].strip()
    if item.body is not None and "=" not in header:
        # struct, union or enum with its members: a variable only if a name follows.
        name = item.tail.split("=", 1)[0].strip()
        return f"{declaration} {name}" if name else None
    if re.fullmatch(r"(struct|union|enum)\s+\w+", declaration):
        return None
    if "*" not in declaration and re.search(r"\w+_fn\s+\w+(\s*,\s*\w+)*$", declaration):
        return None  # a function declared by its typedef
    return declaration if re.search(r"\w\s+\**\s*\w|\*\s*\w", declaration) else None


def _judge(path, line, declaration):
    if re.search(r"\b(_Thread_local|__thread)\b", declaration):
        if THREAD_LOCAL_ALLOWED.fullmatch(path):
            return []
        return [Finding(path, line, "a thread-local variable outside io/reactor.c")]
    if is_constant(declaration):
        return []
    name = re.sub(r"\s+", " ", declaration)
    return [Finding(path, line, f"a variable that outlives the call: {name}; put it into a "
                    "struct that is passed, or make it const")]


def check(tree):
    findings = []
    for path in tree.product_c():
        if ALLOWED.fullmatch(path):
            continue
        code = c_source.code_only(tree.text(path))
        try:
            items = c_source.items(code)
        except c_source.Unbalanced:
            continue  # the size check reports it
        for item in items:
            declaration = _variable(item)
            if declaration:
                findings += _judge(path, item.first_line, declaration)
            if item.is_function():
                body = code[item.body[0]:item.body[1]]
                for match in _LOCAL_STATIC.finditer(body):
                    line = code.count("\n", 0, item.body[0] + match.start(1)) + 1
                    findings += _judge(path, line, match.group(1).strip())
    return findings


GOOD = {
    "volmgr/a.c": "static const int a = 1;\nstatic const char *const names[] = { x, y };\n"
                  "static stage_fn *const table[] = { [A] = f };\n"
                  "static stage_fn stage_a, stage_b;\ntypedef int t;\n"
                  "extern int e;\nstruct s;\nstruct s {\n    int x;\n};\n"
                  "enum {\n    E = 1\n};\nint f(void (*g)(int), char a[static 3]);\n"
                  "static int\nf(void)\n{\n    static const int x[] = { 1 };\n    int y = 1;\n"
                  "    return y + x[0];\n}\n_Static_assert(sizeof(int) == 4, \"int\");\n"
                  "static int (*const hook)(void) = f;\n"
                  "struct p {\n    int x;\n} __attribute__((packed));\n"
                  "const struct ops memory_ops = {\n    .open = f,\n};\n",
    "base/log.c": "static int level;\n",
    "io/reactor.c": "static _Thread_local struct reactor *self;\n",
    "daemon/main.c": "static int stop;\n",
}
BAD = [
    ({"volmgr/a.c": text}, "outlives the call") for text in (
        "static int counter;\n", "int counter = 3;\n", "static const char *name;\n",
        "static int table[] = { 1, 2 };\n", "struct s {\n    int x;\n} one;\n",
        "static int (*hook)(void);\n", "static struct s s = { 0 };\n", "DECLARE(3)\nint a;\n",
        "static int\nf(void)\n{\n    static int calls;\n    return calls++;\n}\n",
        "static int\nf(void)\n{\n    int a = 1;\n    static char buffer[10];\n    return a;\n}\n")
] + [({"volmgr/a.c": "static _Thread_local int x;\n"}, "thread-local")]
