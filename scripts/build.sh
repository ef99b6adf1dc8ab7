#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Configures and builds.
#
#   scripts/build.sh [PRESET] [TARGET...]
#
# PRESET is one of CMakePresets.json: release (default, in build/), address, thread, coverage,
# clang, fuzz (in build-PRESET/). VOLMGR_JOBS limits the number of compilers at a time.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-} in
-h | --help)
    sed -n '4,10s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
esac

preset=${1:-release}
shift || true
build=build
[[ $preset == release ]] || build=build-$preset

jobs=${VOLMGR_JOBS:-$(nproc)}
cmake --preset "$preset" >"${TMPDIR:-/tmp}/volmgr-configure.$$" 2>&1 || {
    cat "${TMPDIR:-/tmp}/volmgr-configure.$$" >&2
    rm -f "${TMPDIR:-/tmp}/volmgr-configure.$$"
    printf 'build: cmake failed; scripts/install-packages.sh --build installs what it needs\n' >&2
    exit 1
}
rm -f "${TMPDIR:-/tmp}/volmgr-configure.$$"
if [[ $# -gt 0 ]]; then
    exec cmake --build "$build" --parallel "$jobs" --target "$@"
fi
exec cmake --build "$build" --parallel "$jobs"
