# SPDX-License-Identifier: Apache-2.0
"""What may be in git: text of a reasonable size, and commits that say why."""

import os
import re
import subprocess
import tempfile

import text as text_check
from tree import Finding, Skip, Tree

FILE_BYTES_MAX = 256 * 1024
CORPUS = "tests/fuzz/corpus/"
CORPUS_BYTES_MAX = 16 * 1024
SUBJECT_COLUMNS_MAX = 72
BODY_COLUMNS_MAX = 100
TRIVIAL_LINES_MAX = 10  # a commit that changes more needs a body


def _check_files(tree):
    findings = []
    for path in tree.paths:
        content = tree.bytes(path)
        is_corpus = path.startswith(CORPUS)
        limit = CORPUS_BYTES_MAX if is_corpus else FILE_BYTES_MAX
        if len(content) > limit:
            findings.append(Finding(path, 0, f"{len(content)} bytes, more than {limit}"))
        if b"\0" in content and not is_corpus:
            findings.append(Finding(path, 0, "is binary; only the fuzz corpus may be"))
    return findings


def _check_message(short, message, changed_lines):
    lines = message.rstrip("\n").split("\n")
    place = f"commit {short}"
    findings = []
    if not lines[0].strip():
        return [Finding(place, 0, "has no subject")]
    if len(lines[0]) > SUBJECT_COLUMNS_MAX:
        findings.append(Finding(place, 0, f"subject has {len(lines[0])} columns, more than "
                                f"{SUBJECT_COLUMNS_MAX}: {lines[0]}"))
    if lines[0].endswith("."):
        findings.append(Finding(place, 0, f"subject ends with a full stop: {lines[0]}"))
    if re.match(r"(fixup|squash|amend)!|wip\b", lines[0], re.IGNORECASE):
        findings.append(Finding(place, 0, f"is unfinished: {lines[0]}"))
    if len(lines) > 1 and lines[1].strip():
        findings.append(Finding(place, 0, "no blank line between subject and body"))
    # Trailers such as Signed-off-by are not a body.
    body = [line for line in lines[1:] if line.strip() and not re.match(r"[A-Z][\w-]+: \S", line)]
    if changed_lines > TRIVIAL_LINES_MAX and not body:
        findings.append(Finding(place, 0, f"changes {changed_lines} lines without a body that says "
                                f"why: {lines[0]}"))
    for line in lines[1:]:
        if len(line) > BODY_COLUMNS_MAX and " " in line.strip():
            findings.append(Finding(place, 0, f"body line of {len(line)} columns"))
    if text_check._PLACE.search(message):
        findings.append(Finding(place, 0, "names an absolute path of somebody's machine"))
    return findings


def _commits(tree):
    """(short id, message, changed lines) of each commit that is not a merge."""
    try:
        output = tree.git("log", "--no-merges", "--no-renames", "--numstat",
                          "--format=%x01%h%x02%B%x02").decode("utf-8", "replace")
    except subprocess.CalledProcessError:
        return  # no commit yet
    for record in output.split("\x01")[1:]:
        short, message, numbers = record.split("\x02")
        counts = re.findall(r"^(\d+)\t(\d+)\t", numbers, re.MULTILINE)
        yield short, message, sum(int(added) + int(removed) for added, removed in counts)


def check(tree):
    if not tree.is_git:
        raise Skip("not a git checkout")
    findings = _check_files(tree)
    count = 0
    for short, message, changed_lines in _commits(tree):
        count += 1
        findings += _check_message(short, message, changed_lines)
    tree.notes.append(f"{len(tree.paths)} files, {count} commits")
    return findings


_LONG = "int x;\n" * 20


def _sample(message, path, content):
    """Findings about a repository with one commit."""
    with tempfile.TemporaryDirectory() as root:
        os.makedirs(os.path.join(root, os.path.dirname(path)), exist_ok=True)
        with open(os.path.join(root, path), "wb") as file:
            file.write(content)
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
        for command in (["init", "-q"], ["add", "-A"],
                        [*identity, "commit", "-q", "--no-verify", "--cleanup=verbatim",
                         "-m", message]):
            subprocess.run(["git", "-C", root, *command], check=True, stdout=subprocess.DEVNULL)
        return [str(finding) for finding in check(Tree(root))]


def self_test():
    """Complaints; none when the check finds what it must and nothing else."""
    code = _LONG.encode()
    why = "map: keep the page\n\nIt was evicted while in use, which lost a delta.\n"
    good = [(why, "a.c", code), ("Fix a typo", "a.c", b"int x;\n"), (why, CORPUS + "a", b"\0\1")]
    bad = [
        ("x" * 73 + "\n\nwhy\n", "a.c", code, "subject has 73 columns"),
        ("Change much\n", "a.c", code, "without a body"),
        ("Change much\n\nSigned-off-by: A <a@example.com>\n", "a.c", code, "without a body"),
        ("Change much.\n\nwhy\n", "a.c", code, "full stop"),
        ("fixup! map\n\nwhy\n", "a.c", code, "unfinished"),
        ("One\ntwo\n", "a.c", code, "no blank line"),
        ("One\n\n" + "word " * 30 + "\n", "a.c", code, "body line of"),
        ("One\n\nsee /wo" + "rk/main\n", "a.c", code, "absolute path"),
        (why, "a.bin", b"\0\1", "is binary"),
        (why, "a.c", b"x\n" * (FILE_BYTES_MAX // 2 + 1), "more than 262144"),
        (why, CORPUS + "a", b"x" * (CORPUS_BYTES_MAX + 1), "more than 16384"),
    ]
    complaints = []
    for message, path, content in good:
        complaints += [f"good sample is refused: {found}"
                       for found in _sample(message, path, content)]
    for message, path, content, expected in bad:
        found = _sample(message, path, content)
        if not any(expected in line for line in found):
            complaints.append(f"bad sample passes: wanted '{expected}', got {found}")
    return complaints
