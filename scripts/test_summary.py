#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads the results of ctest for scripts/test.sh.

    test_summary.py --label L --log FILE L.xml    what happened in one layer
    test_summary.py --total BASE...               all layers together; the last line is
                                                  "N passed, N failed, N skipped". BASE.json: what
                                                  ctest knows, BASE.xml: what it ran
"""

import json
import os
import sys
import xml.etree.ElementTree as ElementTree

# How ctest says that a test itself asked to be skipped. Any other test that was not run (no such
# program, a missing file, a failed fixture) counts as failed.
SKIP_REASONS = ("SKIP_RETURN_CODE", "SKIP_REGULAR_EXPRESSION")


def read_results(path):
    """name -> (outcome, seconds, explanation); nothing when ctest wrote no file."""
    results = {}
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        return results
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        status = case.get("status")
        skipped = case.find("skipped")
        reason = skipped.get("message", "") if skipped is not None else ""
        if status == "run":
            outcome = "passed"
        elif status == "disabled" or (status == "notrun" and reason.startswith(SKIP_REASONS)):
            outcome = "skipped"
        else:
            outcome = "failed"
            failure = case.find("failure")
            reason = reason or (failure.get("message", "") if failure is not None else "")
        output = case.findtext("system-out") or ""
        results[case.get("name")] = (outcome, float(case.get("time") or 0), reason, output)
    return results


def known_tests(path):
    with open(path, encoding="utf-8") as file:
        return [test["name"] for test in json.load(file)["tests"]]


def print_label(label, log_path, xml_path):
    results = read_results(xml_path)
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for name, (outcome, _, reason, output) in results.items():
        counts[outcome] += 1
        if outcome == "skipped":
            lines = [line for line in output.strip().splitlines() if line.strip()]
            print(f"  skipped {name}: {lines[-1] if lines else reason}")
    if counts["failed"] or not results:
        with open(log_path, encoding="utf-8", errors="replace") as file:
            print(file.read().rstrip())
    seconds = sum(result[1] for result in results.values())
    print(f"  {label}: {counts['passed']} passed, {counts['failed']} failed, "
          f"{counts['skipped']} skipped in {seconds:.1f} s of tests")


def print_total(bases):
    totals = {"passed": 0, "failed": 0, "skipped": 0}
    failures = []
    slowest = []
    for base in bases:
        results = read_results(base + ".xml")
        for name in known_tests(base + ".json"):
            outcome, seconds, reason, _ = results.get(name, ("failed", 0.0, "did not run", ""))
            totals[outcome] += 1
            slowest.append((seconds, name))
            if outcome == "failed":
                failures.append(f"{name} ({reason or 'failed'})")
    for seconds, name in sorted(slowest, reverse=True)[:5]:
        if seconds >= 5:
            print(f"  {seconds:7.1f} s  {name}")
    for failure in failures:
        print(f"  FAILED {failure}")
    if sum(totals.values()) == 0:
        print("  FAILED there are no tests")
        totals["failed"] = 1
    print(f"{totals['passed']} passed, {totals['failed']} failed, {totals['skipped']} skipped")
    return 1 if totals["failed"] else 0


def main():
    arguments = sys.argv[1:]
    if len(arguments) == 5 and arguments[0] == "--label" and arguments[2] == "--log":
        print_label(arguments[1], arguments[3], arguments[4])
        return 0
    if len(arguments) >= 2 and arguments[0] == "--total":
        return print_total(arguments[1:])
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
