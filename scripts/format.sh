#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Formats C files as .clang-format says. The layout of this project is older than that file, which
# only comes close to it: what it does to columns of comments is sometimes worse. So nothing
# enforces it; look at the difference before you keep it.
#
#   scripts/format.sh FILE...            rewrite these files
#   scripts/format.sh --check [FILE...]  change nothing; name the files that would change and how
#                                        many lines of each; exit status 1 when there are any
set -euo pipefail
cd "$(dirname "$0")/.."

command -v clang-format >/dev/null || {
    printf 'format: no clang-format; scripts/install-packages.sh --develop installs it\n' >&2
    exit 2
}

check=0
if [[ ${1:-} == --check ]]; then
    check=1
    shift
fi
if [[ $# -eq 0 || ${1:-} == -* ]]; then
    [[ $check -eq 1 && $# -eq 0 ]] || {
        sed -n '4,11s/^# \{0,1\}//p' "$0"
        exit 2
    }
    mapfile -t files < <(git ls-files --cached --others --exclude-standard -- '*.c' '*.h')
    set -- "${files[@]}"
fi

if [[ $check -eq 0 ]]; then
    exec clang-format -i -- "$@"
fi
status=0
for file in "$@"; do
    changed=$(clang-format -- "$file" | diff "$file" - | grep -c '^[<>]' || true)
    if [[ $changed -gt 0 ]]; then
        printf '%s: %d lines\n' "$file" "$changed"
        status=1
    fi
done
exit "$status"
