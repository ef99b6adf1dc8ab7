# SPDX-License-Identifier: Apache-2.0
"""The files that the lints read, and what they answer.

A check is a module with a function check(tree) that returns a list of findings. An empty list is a
pass. It may raise Skip where the machine lacks what the check needs (no git, no shellcheck).
"""

import os
import subprocess

# Folders of the product. What a check says about "product code" is about these.
PRODUCT = ("base", "io", "backends", "metadata", "volmgr", "replication", "targets", "api",
           "daemon", "cli")


class Skip(Exception):
    """The check cannot be made here; the text says why."""


class Finding:
    def __init__(self, path, line, text):
        self.path = path
        self.line = line
        self.text = text

    def __str__(self):
        place = self.path if self.line == 0 else f"{self.path}:{self.line}"
        return f"{place}: {self.text}"


class Tree:
    """A source tree: relative paths with forward slashes, and their contents."""

    def __init__(self, root):
        self.root = os.path.abspath(root)
        self.notes = []  # lines for the reader that are not findings
        self.is_git = os.path.exists(os.path.join(self.root, ".git"))
        self.paths = sorted(self._list())
        self._text = {}

    def git(self, *arguments):
        """Output of a git command as bytes. The tree may belong to another user than we are."""
        command = ["git", "-c", "safe.directory=*", "-C", self.root, *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE).stdout

    def _list(self):
        if self.is_git:
            try:
                listed = self.git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
                names = {os.fsdecode(name) for name in listed.split(b"\0") if name}
                return [name for name in names if os.path.isfile(os.path.join(self.root, name))]
            except (OSError, subprocess.CalledProcessError):
                self.is_git = False
        found = []
        for folder, folders, names in os.walk(self.root):
            relative = os.path.relpath(folder, self.root)
            if relative == ".":
                folders[:] = [name for name in folders
                              if not name.startswith("build") and name != ".git"]
                relative = ""
            folders[:] = [name for name in folders if name != "__pycache__"]
            found += [os.path.join(relative, name) for name in names]
        return found

    def bytes(self, path):
        with open(os.path.join(self.root, path), "rb") as file:
            return file.read()

    def text(self, path):
        if path not in self._text:
            self._text[path] = self.bytes(path).decode("utf-8", "replace")
        return self._text[path]

    def select(self, suffixes, folders=None):
        """Paths that end with one of `suffixes`, below one of `folders` (None: anywhere)."""
        return [path for path in self.paths
                if path.endswith(suffixes)
                and (folders is None or path.split("/", 1)[0] in folders)]

    def product_c(self):
        return self.select((".c", ".h"), PRODUCT)

    def all_c(self):
        return self.select((".c", ".h"))

    def scripts(self):
        """Shell scripts, by name or by their first line."""
        found = []
        for path in self.paths:
            if path.endswith(".sh"):
                found.append(path)
            elif "." not in os.path.basename(path) or path.startswith("."):
                first = self.bytes(path)[:64].split(b"\n", 1)[0]
                if first.startswith(b"#!") and first.rstrip().endswith((b"sh", b"bash")):
                    found.append(path)
        return found


def line_of(text, position):
    return text.count("\n", 0, position) + 1
