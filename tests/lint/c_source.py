# SPDX-License-Identifier: Apache-2.0
"""Enough understanding of C to find functions, variables and declarations.

Not a compiler: the text is stripped of comments, literals and preprocessor lines (which keeps line
numbers), then cut at the semicolons and braces of the outermost level.
"""

import re

_COMMENT_OR_LITERAL = re.compile(
    r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
_PREPROCESSOR = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
_ATTRIBUTE = re.compile(r"__attribute__\s*\(\(")
_MACRO_CALLS = re.compile(r"\s*(?:[A-Z][A-Z0-9_]*\s*\([^()]*\)\s*)+(?=[a-z_])")


class Unbalanced(Exception):
    """Braces do not match; the argument is the line where it was noticed."""


def _blank(text):
    return re.sub(r"[^\n]", " ", text)


def without_comments(text):
    """Comments blanked; literals and preprocessor lines kept."""
    def replace(match):
        found = match.group(0)
        return _blank(found) if found.startswith("/") else found
    return _COMMENT_OR_LITERAL.sub(replace, text)


def without_comments_and_literals(text):
    def replace(match):
        found = match.group(0)
        if found.startswith("/"):
            return _blank(found)
        return found[0] + _blank(found[1:-1]) + found[-1]
    return _COMMENT_OR_LITERAL.sub(replace, text)


def code_only(text):
    """Comments, contents of literals, and preprocessor lines blanked; line numbers kept."""
    return _PREPROCESSOR.sub(lambda match: _blank(match.group(0)),
                             without_comments_and_literals(text))


def macros(text):
    """(name, first line, number of lines) of each #define."""
    stripped = without_comments_and_literals(text)
    for match in _PREPROCESSOR.finditer(stripped):
        name = re.match(r"\s*#\s*define\s+(\w+)", match.group(0))
        if name:
            yield (name.group(1), stripped.count("\n", 0, match.start()) + 1,
                   match.group(0).count("\n") + 1)


def _without_attributes(text):
    while True:
        match = _ATTRIBUTE.search(text)
        if not match:
            return text
        depth = 0
        for end in range(match.end() - 2, len(text)):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            if depth == 0:
                break
        text = text[:match.start()] + " " * (end + 1 - match.start()) + text[end + 1:]


class Item:
    """Something at the outermost level, from `start` to `end` of the code."""

    def __init__(self, code, start, end, body):
        header = code[start:body[0]] if body else code[start:end]
        macro = _MACRO_CALLS.match(header)
        skipped = macro.end() if macro else len(header) - len(header.lstrip())
        self.start = start + skipped
        self.end = end
        self.body = body  # (position of the brace, position of its partner) or None
        self.header = _without_attributes(header[skipped:])
        self.tail = _without_attributes(code[body[1] + 1:end]) if body else ""
        self.first_line = code.count("\n", 0, self.start) + 1
        self.last_line = code.count("\n", 0, end) + 1

    def is_function(self):
        header = self.header.strip()
        return (self.body is not None and header.endswith(")") and "=" not in header
                and not header.startswith("typedef"))

    def is_static(self):
        return re.search(r"\bstatic\b", self.header.split("(", 1)[0]) is not None

    def is_prototype(self):
        header = self.header.strip()
        if self.body is not None or header.startswith(("typedef", "_Static_assert")):
            return False
        return re.match(r"[^(=]*\w\s*\((?!\s*\*)", header) is not None

    @property
    def name(self):
        match = re.search(r"(\w+)\s*\(", self.header)
        return match.group(1) if match else "?"


def items(code):
    """Cut code_only() text into Items. Raises Unbalanced."""
    found = []
    start = 0
    parentheses = 0
    depth = 0
    body_start = None
    body = None
    for match in re.finditer(r"[{}();]", code):
        character, position = match.group(0), match.start()
        if depth == 0 and character in "()":
            parentheses += 1 if character == "(" else -1
        elif character == "{":
            if depth == 0 and body is None:
                body_start = position
            depth += 1
        elif character == "}":
            depth -= 1
            if depth < 0:
                raise Unbalanced(code.count("\n", 0, position) + 1)
            if depth == 0 and parentheses == 0:
                body = body or (body_start, position)
                item = Item(code, start, position + 1, body)
                if item.is_function():
                    found.append(item)
                    start, body = position + 1, None
        elif character == ";" and depth == 0 and parentheses == 0:
            found.append(Item(code, start, position, body))
            start, body = position + 1, None
    if depth != 0 or parentheses != 0:
        raise Unbalanced(code.count("\n") + 1)
    return found


def functions(text):
    return [item for item in items(code_only(text)) if item.is_function()]
