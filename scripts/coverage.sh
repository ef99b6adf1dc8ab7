#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds with gcov, runs tests, and prints which part of the lines and branches they reached, by
# folder and by file. The lines that were not reached are in build-coverage/coverage.txt.
#
#   scripts/coverage.sh [--label L]...   which layers (default unit model crash sim fuzz system)
set -euo pipefail
cd "$(dirname "$0")/.."

labels=()
while [[ $# -gt 0 ]]; do
    case $1 in
    --label | -L)
        labels+=("${2:?a label}")
        shift
        ;;
    *)
        sed -n '4,7s/^# \{0,1\}//p' "$0"
        exit 2
        ;;
    esac
    shift
done
[[ ${#labels[@]} -gt 0 ]] || labels=(unit model crash sim fuzz system)

build="build-coverage"
scripts/build.sh coverage
find "$build" -name '*.gcda' -delete
for label in "${labels[@]}"; do
    parallel=${VOLMGR_JOBS:-$(nproc)}
    [[ $label != system ]] || parallel=1
    ctest --test-dir "$build" -L "^$label\$" --parallel "$parallel" --output-on-failure --quiet ||
        printf 'coverage: tests of %s failed\n' "$label" >&2
done
scripts/coverage_summary.py "$build" "$build/coverage.txt"
