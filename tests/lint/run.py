#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs lints over the source tree, or proves that they can fail.

    run.py [--root DIR] CHECK...     findings on standard output; exit status 0 clean, 1 findings,
                                     77 cannot be checked here
    run.py --self-test CHECK...      feeds each check a good sample and several bad ones
    run.py --list                    names of the checks
"""

import argparse
import importlib
import os
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

from tree import Skip, Tree  # noqa: E402

CHECKS = ("layers", "size", "text", "banned", "mutable_state", "headers", "build_lists", "shell",
          "repository", "ownership", "stages")
EXIT_SKIP = 77


def _write_sample(root, files):
    for path, content in files.items():
        full = os.path.join(root, path)
        os.makedirs(os.path.dirname(full) or root, exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(content)
        if content.startswith("#!") and "#mode=644" not in content:
            os.chmod(full, 0o755)


def _self_test(name):
    """Complaints about the check itself."""
    check = importlib.import_module(name)
    if hasattr(check, "self_test"):
        return check.self_test()

    with tempfile.TemporaryDirectory() as scratch:
        made = []

        def make_tree(files):
            root = os.path.join(scratch, str(len(made)))
            made.append(root)
            _write_sample(root, files)
            return Tree(root)

        if hasattr(check, "self_test_tree"):
            return check.self_test_tree(make_tree)
        complaints = [f"good sample is refused: {found}"
                      for found in check.check(make_tree(check.GOOD))]
        for files, expected in check.BAD:
            found = [str(finding) for finding in check.check(make_tree(files))]
            if not any(expected in line for line in found):
                complaints.append(f"bad sample passes: wanted '{expected}', got {found}")
        return complaints


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=os.path.dirname(os.path.dirname(HERE)))
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("checks", nargs="*", choices=[*CHECKS, []], metavar="CHECK")
    options = parser.parse_args()
    if options.list:
        print("\n".join(CHECKS))
        return 0
    tree = None if options.self_test else Tree(options.root)
    is_clean = True
    skipped = 0
    names = options.checks or CHECKS
    for name in names:
        try:
            if options.self_test:
                found, notes = _self_test(name), []
            else:
                tree.notes = []
                found = importlib.import_module(name).check(tree)
                notes = [note for note in tree.notes if note]
        except Skip as reason:
            print(f"{name}: skipped: {reason}")
            skipped += 1
            continue
        for line in [*notes, *found]:
            print(f"{name}: {line}")
        is_clean = is_clean and not found
    if not is_clean:
        return 1
    return EXIT_SKIP if skipped == len(names) else 0


if __name__ == "__main__":
    sys.exit(main())
