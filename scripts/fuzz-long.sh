#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the fuzz targets with libFuzzer and runs each for some time, one after the other, at the
# lowest priority that there is. Inputs that reach new code are kept: they are merged into
# tests/fuzz/corpus, which ctest replays. Prints a line for each target: executions, CPU time,
# edges and features covered, inputs, crashes. The exit status is 1 when something crashed.
#
#   scripts/fuzz-long.sh [--seconds N] [--rounds N] [--no-merge] [--build DIR] [TARGET...]
#
#   --seconds N   for each target and round (default 3600)
#   --rounds N    go round so often (default 1); inputs found are carried on
#   --no-merge    leave tests/fuzz/corpus as it is
#   --build DIR   use the fuzz targets that have been built there
#
# What is found stays in the folder fuzz/ of the build: corpus-TARGET, log-TARGET, crash-TARGET-*.
# Give such a file to the target (DIR/tests/fuzz/fuzz_TARGET FILE) to see it again.
set -euo pipefail
cd "$(dirname "$0")/.."

# Inputs beyond this say nothing that smaller ones do not, and corpora are kept small.
readonly input_bytes_max=16384 kept_bytes_max=4096
seconds=3600
rounds=1
merge=1
build=
targets=()

fail() {
    printf 'fuzz-long: %s\n' "$*" >&2
    exit 2
}

while [[ $# -gt 0 ]]; do
    case $1 in
    --seconds | --rounds)
        [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || fail "$1 needs a number"
        declare "${1#--}=$2"
        shift
        ;;
    --no-merge) merge=0 ;;
    --build)
        build=${2:?a folder}
        shift
        ;;
    -h | --help)
        sed -n '4,18s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    -*) fail "unknown option $1" ;;
    *) targets+=("$1") ;;
    esac
    shift
done

if [[ -z $build ]]; then
    build="build-fuzz"
    scripts/build.sh fuzz
fi
if [[ ${#targets[@]} -eq 0 ]]; then
    for program in "$build"/tests/fuzz/fuzz_*; do
        [[ -x $program && -f $program ]] && targets+=("${program##*/fuzz_}")
    done
fi
[[ ${#targets[@]} -gt 0 ]] || fail "no fuzz targets in $build"

found=$build/fuzz
mkdir -p "$found"
export ASAN_OPTIONS=abort_on_error=1:detect_leaks=1
export UBSAN_OPTIONS=abort_on_error=1:print_stacktrace=1
declare -A executions cpu_s edges features inputs crashes
quiet=(nice -n 19)
chrt -i 0 true 2>/dev/null && quiet=(chrt -i 0 nice -n 19)

# The value of a line "stat::NAME: N" at the end of a run.
statistic() {
    sed -n "s/^stat::$2: *//p" "$1" | tail -1
}

# One run of target $1; the figures are added up over the rounds.
run_target() {
    local name=$1 log=$found/log-$1 seeds=()
    mkdir -p "$found/corpus-$name"
    [[ ! -d tests/fuzz/corpus/$name ]] || seeds=("tests/fuzz/corpus/$name")
    local before after status=0
    times >"$found/times" # not in a subshell, which would tell of its own children
    before=$(sed -n 2p "$found/times")
    "${quiet[@]}" "$build/tests/fuzz/fuzz_$name" -max_total_time="$seconds" -timeout=25 \
        -rss_limit_mb=2048 -max_len=$input_bytes_max -print_final_stats=1 \
        -artifact_prefix="$found/crash-$name-" "$found/corpus-$name" "${seeds[@]}" \
        >"$log" 2>&1 || status=$?
    times >"$found/times"
    after=$(sed -n 2p "$found/times")
    cpu_s[$name]=$(awk -v a="${cpu_s[$name]:-0}" -v from="$before" -v to="$after" '
        function total(text, parts, pair) {
            sub(/ /, "m", text); split(text, parts, "m")
            sub(/s/, "", parts[2]); sub(/s/, "", parts[4])
            return parts[1] * 60 + parts[2] + parts[3] * 60 + parts[4]
        }
        BEGIN { printf "%.0f", a + total(to) - total(from) }')
    local units
    units=$(statistic "$log" number_of_executed_units || true)
    executions[$name]=$((${executions[$name]:-0} + ${units:-0}))
    edges[$name]=$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -1)
    features[$name]=$(sed -n 's/.* ft: \([0-9]*\).*/\1/p' "$log" | tail -1)
    inputs[$name]=$(find "$found/corpus-$name" -type f | wc -l)
    crashes[$name]=$(find "$found" -maxdepth 1 -name "crash-$name-*" | wc -l)
    if [[ $status -ne 0 && ${crashes[$name]} -eq 0 ]]; then
        crashes[$name]=1 # it ended badly and left no input: the log tells
    fi
    report "$name"
}

report() {
    printf '%-18s %12d runs %7d s of CPU %6s edges %6s features %5d inputs %3d crashes\n' "$1" \
        "${executions[$1]:-0}" "${cpu_s[$1]:-0}" "${edges[$1]:--}" "${features[$1]:--}" \
        "${inputs[$1]:-0}" "${crashes[$1]:-0}"
}

# Take over what the corpus in the source tree does not reach yet, smallest inputs first. Edges
# count, not how often they are passed: that would be ten times as many inputs.
merge_target() {
    local name=$1 chosen
    chosen=$(mktemp -d)
    find "$found/corpus-$name" -type f -size "-$((kept_bytes_max + 1))c" -exec cp -t "$chosen" {} +
    mkdir -p "tests/fuzz/corpus/$name"
    "${quiet[@]}" "$build/tests/fuzz/fuzz_$name" -merge=1 -use_counters=0 -max_len=$kept_bytes_max \
        "tests/fuzz/corpus/$name" "$chosen" >"$found/log-merge-$name" 2>&1 ||
        printf 'fuzz-long: cannot merge %s: see %s\n' "$name" "$found/log-merge-$name" >&2
    rm -rf "$chosen"
}

for ((round = 1; round <= rounds; round++)); do
    for name in "${targets[@]}"; do
        run_target "$name"
    done
done
printf '\n'
total=0
for name in "${targets[@]}"; do
    [[ $merge -eq 0 ]] || merge_target "$name"
    report "$name"
    total=$((total + crashes[$name]))
done
[[ $total -eq 0 ]]
