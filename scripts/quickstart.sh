#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# From a fresh checkout to a volume that a virtual machine can use, as an ordinary user.
#
#   scripts/quickstart.sh           build, start volmgrd, make a pool of two file disks and a thin
#                                   volume ten times its size, export it, write and read it back
#   scripts/quickstart.sh --stop    end that volmgrd; everything is still there at the next start
#   scripts/quickstart.sh --clean   end it and delete its folder, data included
#
# May be run again at any time: what is there already is used as it is.
#
# Environment: VOLMGR_QUICKSTART_DIR   where everything lives (default ~/.local/share/volmgr)
#              VOLMGR_BIN_DIR          use the volmgrd and volctl of this folder; build nothing
set -euo pipefail

source_folder=$(cd "$(dirname "$0")/.." && pwd)
folder=${VOLMGR_QUICKSTART_DIR:-${XDG_DATA_HOME:-${HOME:?}/.local/share}/volmgr}
readonly pool=demo volume=demo/vm1
readonly disk_sizes_mib=(2048 3072)
readonly start_timeout_s=60 stop_timeout_s=90

state=$folder/state
pid_file=$folder/volmgrd.pid
log=$folder/volmgrd.log
nbd_socket=$state/nbd.sock
uri="nbd+unix:///$volume?socket=$nbd_socket"

step() {
    printf '\n== %s\n' "$*"
}

fail() {
    printf 'quickstart: %s\n' "$*" >&2
    exit 1
}

volctl() {
    "$bin_folder/volctl" -s "$state/volmgrd.sock" "$@"
}

# The process id of our daemon; nothing when it does not run. A number alone proves nothing: it may
# belong to another process by now.
daemon_pid() {
    local pid
    pid=$(cat "$pid_file" 2>/dev/null) || return 0
    if [[ $pid =~ ^[0-9]+$ ]] && { tr '\0' '\n' <"/proc/$pid/cmdline"; } 2>/dev/null |
        grep -qxF -- "$state"; then
        printf '%s' "$pid"
    fi
}

stop() {
    local pid deadline
    pid=$(daemon_pid)
    if [[ -z $pid ]]; then
        printf 'volmgrd is not running\n'
        rm -f "$pid_file"
        return
    fi
    kill -TERM "$pid"
    deadline=$((SECONDS + stop_timeout_s))
    while [[ -n $(daemon_pid) ]]; do
        [[ $SECONDS -lt $deadline ]] || fail "volmgrd (process $pid) does not end; see $log"
        sleep 0.1
    done
    rm -f "$pid_file"
    printf 'volmgrd has ended\n'
}

prepare_programs() {
    if [[ -n ${VOLMGR_BIN_DIR:-} ]]; then
        bin_folder=$VOLMGR_BIN_DIR
    else
        bin_folder=$source_folder/build/bin
        step "build"
        "$source_folder/scripts/install-packages.sh" --build
        if ! command -v qemu-io >/dev/null && ! command -v nbdcopy >/dev/null; then
            "$source_folder/scripts/install-packages.sh" --client ||
                printf 'going on without an NBD client\n'
        fi
        "$source_folder/scripts/build.sh" release volmgrd volctl
    fi
    [[ -x $bin_folder/volmgrd && -x $bin_folder/volctl ]] ||
        fail "there is no volmgrd and volctl in $bin_folder"
}

start() {
    local deadline
    if [[ -n $(daemon_pid) ]]; then
        printf 'volmgrd runs already (process %s)\n' "$(daemon_pid)"
        return
    fi
    # 107 bytes is what the kernel takes as the path of a unix socket.
    [[ ${#nbd_socket} -le 107 ]] || fail "$folder is too long a path for a socket in it"
    mkdir -p "$state"
    chmod 0700 "$folder"
    : >"$log"
    # A session of its own, so that closing the terminal does not end it.
    setsid "$bin_folder/volmgrd" --state "$state" --foreground >"$log" 2>&1 </dev/null &
    printf '%s\n' "$!" >"$pid_file"
    deadline=$((SECONDS + start_timeout_s))
    until grep -qx ready "$log"; do
        if [[ -z $(daemon_pid) ]] && ! kill -0 "$(cat "$pid_file")" 2>/dev/null; then
            cat "$log" >&2
            rm -f "$pid_file"
            fail "volmgrd did not start"
        fi
        [[ $SECONDS -lt $deadline ]] || fail "volmgrd takes more than $start_timeout_s s; see $log"
        sleep 0.05
    done
    printf 'volmgrd is ready (process %s, log %s)\n' "$(daemon_pid)" "$log"
}

make_volume() {
    local disks=() total_mib=0 number=0 size
    for size in "${disk_sizes_mib[@]}"; do
        disks+=("file:$folder/disk$number.img?size=${size}M")
        total_mib=$((total_mib + size))
        number=$((number + 1))
    done
    if ! volctl pool show "$pool" >/dev/null 2>&1; then
        volctl pool create "$pool" "${disks[@]}"
    fi
    if ! volctl show "$volume" >/dev/null 2>&1; then
        volctl create "$volume" --size "$((10 * total_mib))M"
    fi
    if ! volctl exports --json | grep -qF "\"$volume\""; then
        volctl export "$volume" nbd
    fi
}

# Write a pattern in the middle of the volume and read it back, with whichever client is there.
verify() {
    local pattern=$((RANDOM % 255 + 1))
    if command -v qemu-io >/dev/null; then
        if ! qemu-io -f raw "$uri" -c "write -P $pattern 20G 1M" -c flush \
            -c "read -P $pattern 20G 1M" -c "read -P 0 30G 64k" >"$folder/verify.log" 2>&1 ||
            grep -q 'verification failed' "$folder/verify.log"; then
            fail "what was written does not come back: $(cat "$folder/verify.log")"
        fi
        printf 'qemu-io wrote 1 MiB, flushed, and read the same back\n'
    elif command -v nbdcopy >/dev/null; then
        head -c 1048576 /dev/urandom >"$folder/verify.in"
        nbdcopy "$folder/verify.in" "$uri"
        # head ends before nbdcopy does, which is no failure.
        if ! { nbdcopy "$uri" - 2>/dev/null || true; } | head -c 1048576 |
            cmp - "$folder/verify.in"; then
            fail "what was written does not come back"
        fi
        printf 'nbdcopy wrote 1 MiB and read the same back\n'
    else
        printf 'no NBD client here to try it with (packages qemu-utils, libnbd-bin)\n'
    fi
    if command -v nbdinfo >/dev/null; then
        printf 'nbdinfo sees %s bytes\n' "$(nbdinfo --size "$uri")"
    fi
}

show_next_steps() {
    cat <<EOT

== What now

Attach it to a virtual machine:

    qemu-system-x86_64 -m 1G -accel kvm -device virtio-blk-pci,drive=vm1 -blockdev \\
        driver=nbd,node-name=vm1,export=$volume,server.type=unix,server.path=$nbd_socket

or copy an image into it:

    qemu-img convert -n -O raw IMAGE.qcow2 '$uri'

Ask and change (volctl help says what there is):

    export VOLCTL_SOCKET=$state/volmgrd.sock
    $bin_folder/volctl list
    $bin_folder/volctl attach $volume

End it: scripts/quickstart.sh --stop      Delete it: scripts/quickstart.sh --clean
EOT
}

main() {
    case ${1:-} in
    --stop)
        stop
        return
        ;;
    --clean)
        stop
        # Only what this script has made.
        rm -rf "$state" "$folder"/disk[01].img "$log" "$folder"/verify.*
        rmdir "$folder" 2>/dev/null || true
        return
        ;;
    -h | --help)
        sed -n '4,14s/^# \{0,1\}//p' "$0"
        return
        ;;
    '') ;;
    *) fail "unknown argument $1 (see --help)" ;;
    esac
    prepare_programs
    step "volmgrd in $folder"
    start
    step "pool $pool, volume $volume"
    make_volume
    step "write and read"
    verify
    step "volctl status"
    volctl status
    show_next_steps
}

main "$@"
