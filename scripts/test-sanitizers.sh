#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds with AddressSanitizer + UBSan and with ThreadSanitizer, runs the layers that execute our
# code on both, and the real daemon under valgrind. Takes an hour or two on two cores. The last line
# is "N passed, N failed, N skipped" of all runs together.
#
#   scripts/test-sanitizers.sh [address|thread|valgrind]...      default: all three
#
# Environment: VOLMGR_LABELS           layers (default "unit model crash sim fuzz system"; thread
#                                      without fuzz: its programs have one thread)
#              VOLMGR_TEST_BUDGET_S    time for each of the three (default 7200)
#              VOLMGR_SKIP_INSTALL, VOLMGR_JOBS, CI as for scripts/test.sh
set -euo pipefail
cd "$(dirname "$0")/.."

export VOLMGR_TEST_BUDGET_S=${VOLMGR_TEST_BUDGET_S:-7200}
passed=0 failed=0 skipped=0

# The last line, whatever happens on the way: who ends early has failed.
finish() {
    local status=$?
    [[ $status -eq 0 || $failed -gt 0 ]] || failed=1
    printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
}
trap finish EXIT

heading() {
    printf '\n==== %s\n' "$*"
}

# Adds the numbers of a line "N passed, N failed, N skipped".
count() {
    if [[ $1 =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
        passed=$((passed + BASH_REMATCH[1]))
        failed=$((failed + BASH_REMATCH[2]))
        skipped=$((skipped + BASH_REMATCH[3]))
    else
        printf 'no result: %s\n' "$1"
        failed=$((failed + 1))
    fi
}

# scripts/test.sh with these arguments; its last line is counted and not shown.
run_tests() {
    local output
    output=$(mktemp)
    scripts/test.sh "$@" 2>&1 | tee "$output" | sed -u '$d' || true
    count "$(tail -n 1 "$output")"
    rm -f "$output"
}

run_sanitized() {
    local sanitizer=$1 label arguments=()
    for label in ${VOLMGR_LABELS:-unit model crash sim fuzz system}; do
        [[ $sanitizer == thread && $label == fuzz ]] || arguments+=(--label "$label")
    done
    heading "$sanitizer"
    run_tests --sanitize "$sanitizer" "${arguments[@]}"
}

# The daemon of the release build: valgrind and the sanitizers exclude each other.
run_valgrind() {
    heading valgrind
    [[ ${VOLMGR_SKIP_INSTALL:-0} == 1 ]] || scripts/install-packages.sh
    local log test=(ctest --test-dir build -R '^system/leaks$' --no-tests=error)
    log=$(mktemp)
    if scripts/build.sh release >"$log" 2>&1 &&
        "${test[@]}" --output-on-failure >"$log" 2>&1 && ! grep -q Skipped "$log"; then
        passed=$((passed + 1))
        printf '  no leak, no invalid access\n'
    else
        failed=$((failed + 1))
        cat "$log"
    fi
    rm -f "$log"
}

main() {
    local runs=("$@") name
    [[ ${#runs[@]} -gt 0 ]] || runs=(address thread valgrind)
    for name in "${runs[@]}"; do
        case $name in
        address | thread) run_sanitized "$name" ;;
        valgrind) run_valgrind ;;
        -h | --help)
            sed -n '4,15s/^# \{0,1\}//p' "$0"
            trap - EXIT
            return
            ;;
        *)
            printf 'test-sanitizers: address, thread or valgrind, not "%s"\n' "$name" >&2
            trap - EXIT
            exit 2
            ;;
        esac
    done
    heading summary
    [[ $failed -eq 0 && $passed -gt 0 ]]
}

main "$@"
