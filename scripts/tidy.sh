#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs clang-tidy (the checks are in .clang-tidy) over the C files that the build compiles.
#
#   scripts/tidy.sh [PATH...]     only files below these paths; default: everything
#
# BUILD_FOLDER names the build whose compile_commands.json is used (default build).
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-} in
-h | --help)
    sed -n '4,8s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
esac

build=${BUILD_FOLDER:-build}
command -v clang-tidy >/dev/null || {
    printf 'tidy: no clang-tidy; scripts/install-packages.sh --develop installs it\n' >&2
    exit 2
}
[[ -s $build/compile_commands.json ]] || {
    printf 'tidy: %s is not configured; run scripts/build.sh\n' "$build" >&2
    exit 2
}

mapfile -t files < <(python3 - "$build/compile_commands.json" "$PWD" "$@" <<'PYTHON'
import json, os, sys
commands, root, *wanted = sys.argv[1:]
paths = sorted({os.path.relpath(entry["file"], root) for entry in json.load(open(commands))})
for path in paths:
    if not wanted or any(path == place.rstrip("/") or path.startswith(place.rstrip("/") + "/")
                         for place in wanted):
        print(path)
PYTHON
)
[[ ${#files[@]} -gt 0 ]] || {
    printf 'tidy: no compiled file there\n' >&2
    exit 2
}
printf '%s\n' "${files[@]}" | xargs -d '\n' -P "${VOLMGR_JOBS:-$(nproc)}" -n 4 \
    clang-tidy --quiet -p "$build" 2> >(grep -v 'warnings generated' >&2)
printf 'tidy: %d files are clean\n' "${#files[@]}"
