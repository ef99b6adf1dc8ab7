# SPDX-License-Identifier: Apache-2.0
"""shellcheck over all shell scripts; the same care for Python as its own parser gives."""

import ast
import os
import shutil
import subprocess

from tree import Finding, Skip


def _check_executable(tree, path):
    has_interpreter = tree.bytes(path)[:2] == b"#!"
    is_executable = os.access(os.path.join(tree.root, path), os.X_OK)
    if has_interpreter and not is_executable:
        return [Finding(path, 0, "begins with #! but is not executable")]
    if is_executable and not has_interpreter:
        return [Finding(path, 0, "is executable but does not begin with #!")]
    return []


def _check_python(tree, path):
    try:
        ast.parse(tree.text(path), path)
    except SyntaxError as error:
        return [Finding(path, error.lineno or 0, f"python: {error.msg}")]
    return []


def check(tree):
    findings = []
    scripts = tree.scripts()
    for path in tree.select((".py",)):
        findings += _check_python(tree, path)
    for path in scripts + tree.select((".py",)):
        findings += _check_executable(tree, path)
    if not scripts:
        return findings
    if not shutil.which("shellcheck"):
        raise Skip("no shellcheck")
    result = subprocess.run(["shellcheck", "--external-sources", "--source-path=SCRIPTDIR",
                             "--format=gcc", "--", *scripts],
                            cwd=tree.root, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, check=False)
    for line in result.stdout.splitlines():
        parts = line.split(":", 3)
        if len(parts) == 4 and parts[1].isdigit():
            findings.append(Finding(parts[0], int(parts[1]), "shellcheck:" + parts[3]))
        else:
            findings.append(Finding("shellcheck", 0, line))
    return findings


GOOD = {
    "scripts/a.sh": "#!/bin/sh\nset -eu\necho \"$1\"\n",
    "a.py": "x = 1\n",
}
BAD = [
    ({"scripts/a.sh": "#!/bin/sh\nrm -rf $1/*\n"}, "shellcheck"),
    ({".ci/run": "#!/bin/bash\ncd $1\n"}, "shellcheck"),
    ({"a.py": "def f(:\n"}, "python"),
    ({"plain.sh": "#!/bin/sh\nexit 0\n#mode=644\n"}, "not executable"),
]
