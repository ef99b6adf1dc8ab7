#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs what is missing, builds, and runs the tests layer by layer. The last line of the output
# is "N passed, N failed, N skipped"; the exit status is 0 when nothing failed.
#
#   scripts/test.sh [--label L]... [--sanitize address|thread] [--long]
#
#   --label L     only this layer (lint unit model crash sim fuzz system); may be given repeatedly
#   --sanitize S  build and run with AddressSanitizer + UBSan, or with ThreadSanitizer
#   --long        tests that have a longer form run it (they see VOLMGR_TEST_LONG=1)
#
# Environment: VOLMGR_SKIP_INSTALL=1  do not look for missing packages
#              VOLMGR_TEST_BUDGET_S   time for everything, build included (default 1140; with --long
#                                     14400); tests that do not fit in are counted as failed
#              VOLMGR_JOBS            compilers and tests at a time (default: all processors)
#              CI                     when set, the output of every failed test is printed in full
set -euo pipefail
cd "$(dirname "$0")/.."

readonly all_labels=(lint unit model crash sim fuzz system)
labels=()
sanitize=none
budget_default_s=1140
jobs=${VOLMGR_JOBS:-$(nproc)}
started=$SECONDS

# The last line, whatever happens on the way. Until the tests have run it tells of one failure.
last_line='0 passed, 1 failed, 0 skipped'
trap 'printf "%s\n" "$last_line"' EXIT

fail() {
    printf 'test: %s\n' "$*"
    exit 2
}

heading() {
    printf '\n== %s\n' "$*"
}

parse_arguments() {
    while [[ $# -gt 0 ]]; do
        case $1 in
        --label | -L)
            [[ " ${all_labels[*]} bench " == *" ${2:-} "* ]] || fail "--label ${all_labels[*]}"
            labels+=("$2")
            shift
            ;;
        --sanitize)
            [[ ${2:-} == address || ${2:-} == thread ]] || fail "--sanitize address or thread"
            sanitize=$2
            shift
            ;;
        --long)
            export VOLMGR_TEST_LONG=1
            budget_default_s=14400
            ;;
        -h | --help)
            sed -n '4,19s/^# \{0,1\}//p' "$0"
            trap - EXIT
            exit 0
            ;;
        *) fail "unknown argument $1 (see --help)" ;;
        esac
        shift
    done
    if [[ ${#labels[@]} -eq 0 ]]; then
        labels=("${all_labels[@]}")
    fi
    preset=release build_folder=build
    if [[ $sanitize != none ]]; then
        preset=$sanitize build_folder=build-$sanitize
    fi
}

build() {
    heading "build ($build_folder)"
    if ! VOLMGR_JOBS=$jobs scripts/build.sh "$preset" >"$logs/build.log" 2>&1; then
        tail -n 60 "$logs/build.log"
        printf 'test: the build failed\n'
        exit 1
    fi
    tail -n 1 "$logs/build.log"
}

# How ctest is called: ThreadSanitizer cannot place its shadow when addresses are too random.
ctest_command=(ctest)
set_sanitizer_options() {
    local stack=detect_stack_use_after_return=1
    export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=1:$stack}
    export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:abort_on_error=1}
    local libraries=suppressions=$PWD/scripts/tsan-suppressions.txt
    local halt=halt_on_error=1:second_deadlock_stack=1:abort_on_error=1
    export TSAN_OPTIONS=${TSAN_OPTIONS:-$libraries:$halt}
    if [[ $sanitize == thread ]] && setarch "$(uname -m)" -R true 2>/dev/null; then
        ctest_command=(setarch "$(uname -m)" -R ctest)
    fi
}

run_label() {
    local label=$1 parallel=$jobs left output=(--output-on-failure)
    # System tests share ports, namespaces and the disks of the machine.
    [[ $label != system && $label != bench ]] || parallel=1
    left=$((budget_s - (SECONDS - started)))
    heading "$label"
    if [[ $left -le 0 ]]; then
        printf 'no time left\n'
        return
    fi
    [[ -n ${CI:-} ]] || output+=(--test-output-size-failed 20000)
    "${ctest_command[@]}" --test-dir "$build_folder" -L "^$label\$" --parallel "$parallel" \
        "${output[@]}" --stop-time "$(date -d "+$left seconds" +%H:%M:%S)" \
        --output-junit "$logs/$label.xml" >"$logs/$label.log" 2>&1 || true
    scripts/test_summary.py --label "$label" --log "$logs/$label.log" "$logs/$label.xml"
}

main() {
    parse_arguments "$@"
    budget_s=${VOLMGR_TEST_BUDGET_S:-$budget_default_s}
    logs=$PWD/$build_folder/test-results
    rm -rf "$logs"
    mkdir -p "$logs"
    if [[ ${VOLMGR_SKIP_INSTALL:-0} != 1 ]]; then
        heading packages
        scripts/install-packages.sh
    fi
    build
    set_sanitizer_options

    local label results=()
    for label in "${labels[@]}"; do
        # What ctest knows, so that a test that never ran is not forgotten.
        ctest --test-dir "$build_folder" -L "^$label\$" --show-only=json-v1 >"$logs/$label.json"
        run_label "$label"
        results+=("$logs/$label")
    done
    heading "summary ($((SECONDS - started)) s)"
    local status=0
    scripts/test_summary.py --total "${results[@]}" >"$logs/summary" || status=$?
    sed '$d' "$logs/summary"
    last_line=$(tail -n 1 "$logs/summary")
    exit "$status"
}

main "$@"
