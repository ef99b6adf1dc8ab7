#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs the Debian 12 packages that volmgr is built and tested with. Does nothing, and needs no
# rights, when all of them are there.
#
#   scripts/install-packages.sh             what --build and --test need
#   scripts/install-packages.sh --build     compiler and libraries
#   scripts/install-packages.sh --client    a small NBD client, to try a volume with
#   scripts/install-packages.sh --test      clients, foreign servers, sanitizers, a guest's kernel
#   scripts/install-packages.sh --develop   clang-tidy, clang-format, a debugger, mmdebstrap
#   scripts/install-packages.sh --check     install nothing; exit status 1 when something is missing
set -euo pipefail

readonly build_packages=(
    gcc libc6-dev cmake ninja-build pkg-config
    liburing-dev libiscsi-dev librocksdb-dev uuid-dev libcmocka-dev libjansson-dev
    libmicrohttpd-dev libcurl4-openssl-dev libgnutls28-dev libsystemd-dev libisal-dev
    python3
)
# libnbd-bin brings nbdinfo, nbdcopy and nbdfuse; libiscsi-bin the iSCSI conformance tests.
readonly test_packages=(
    git clang libclang-rt-14-dev gnutls-bin openssl ca-certificates
    tgt nbdkit nbd-server nbd-client libnbd-bin python3-libnbd libiscsi-bin
    fio qemu-utils qemu-system-x86 qemu-system-common
    e2fsprogs xfsprogs valgrind shellcheck jq cpio busybox-static
    curl procps iproute2 util-linux file dpkg-dev man-db
)
readonly client_packages=(libnbd-bin)
readonly develop_packages=(clang-tidy clang-format gdb mmdebstrap)

fail() {
    printf 'install-packages: %s\n' "$*" >&2
    exit 1
}

# Names of those arguments that are not installed.
missing_of() {
    local installed name
    installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null |
        awk '$2 == "installed" { print $1 }' || true)
    for name in "$@"; do
        grep -qxF -- "$name" <<<"$installed" || printf '%s\n' "$name"
    done
}

# The prefix with which apt-get may be called.
privilege() {
    if [[ $(id -u) -eq 0 ]]; then
        return
    fi
    if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; then
        printf 'sudo'
        return
    fi
    fail "these packages are missing, and this user is neither root nor may use sudo: $*
Ask an administrator to run: apt-get install --no-install-recommends $*"
}

install_packages() {
    local prefix
    prefix=$(privilege "$@")
    printf 'install-packages: installing %s\n' "$*"
    # $prefix is empty or one word.
    # shellcheck disable=SC2086
    if ! $prefix env DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
        --no-install-recommends "$@"; then
        # The lists of packages may be absent or old; only then are they fetched.
        $prefix apt-get update -q
        # shellcheck disable=SC2086
        $prefix env DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
            --no-install-recommends "$@"
    fi
}

main() {
    local wanted=() with_test=0 check_only=0 groups=0 argument
    for argument in "$@"; do
        case $argument in
        --build) wanted+=("${build_packages[@]}") groups=1 ;;
        --test) wanted+=("${test_packages[@]}") groups=1 with_test=1 ;;
        --client) wanted+=("${client_packages[@]}") groups=1 ;;
        --develop) wanted+=("${develop_packages[@]}") groups=1 ;;
        --check) check_only=1 ;;
        -h | --help)
            sed -n '4,13s/^# \{0,1\}//p' "$0"
            return
            ;;
        *) fail "unknown argument $argument (see --help)" ;;
        esac
    done
    if [[ $groups -eq 0 ]]; then
        wanted=("${build_packages[@]}" "${test_packages[@]}")
        with_test=1
    fi
    command -v dpkg-query >/dev/null ||
        fail "this is not a Debian system; see the lists in this script for what is needed"

    local missing=()
    mapfile -t missing < <(missing_of "${wanted[@]}")
    if [[ $check_only -eq 1 ]]; then
        [[ ${#missing[@]} -eq 0 ]] || fail "missing: ${missing[*]}"
        return
    fi
    if [[ ${#missing[@]} -gt 0 ]]; then
        install_packages "${missing[@]}"
    fi
    if [[ $with_test -eq 1 ]]; then
        # Without the guest's kernel the tests that boot a guest are skipped; everything else runs.
        "$(dirname "$0")/fetch-guest-kernel.sh" >/dev/null ||
            printf 'install-packages: no guest kernel; tests that boot one will be skipped\n' >&2
    fi
}

main "$@"
