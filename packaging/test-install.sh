#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs, upgrades, removes and purges the Debian package on a throw-away copy of this system (an
# overlay in a mount namespace of its own), and runs the daemon as its service would:
#   test-install.sh BUILD_FOLDER
set -euo pipefail

build=$1

skip() {
    printf 'skipped: %s\n' "$*"
    exit 77
}

# Runs inside: $1 is the package.
inside() {
    set -euo pipefail
    mount -t tmpfs none /mnt
    mkdir /mnt/upper /mnt/work /mnt/root
    mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root ||
        exit 77
    cp "$1" /mnt/root/volmgr.deb
    cp "${BASH_SOURCE[0]%/*}/test-service.sh" /mnt/root/test-service.sh
    mount -t proc proc /mnt/root/proc
    mount --rbind /dev /mnt/root/dev
    mount -t tmpfs none /mnt/root/run
    # The script is expanded inside.
    # shellcheck disable=SC2016
    chroot /mnt/root bash -euo pipefail -c '
        fail() {
            printf "FAILED: %s\n" "$*"
            exit 1
        }
        if dpkg -s volmgr >/dev/null 2>&1; then
            dpkg --purge volmgr
        fi
        rm -rf /var/lib/volmgr
        dpkg --install --force-depends /volmgr.deb
        getent passwd volmgr >/dev/null || fail "no user volmgr"
        [[ $(stat -c "%U %a" /var/lib/volmgr) == "volmgr 750" ]] || fail "state directory"
        [[ -L /etc/systemd/system/multi-user.target.wants/volmgrd.service ]] || fail "not enabled"
        volctl --version
        volmgrd --version
        man -w volctl volmgrd >/dev/null || fail "no manual pages"
        source /test-service.sh
        service_first_day
        echo "# mine" >>/etc/volmgr/volmgrd.conf

        rm /etc/systemd/system/multi-user.target.wants/volmgrd.service
        dpkg --install --force-depends --force-confold /volmgr.deb
        grep -qx "# mine" /etc/volmgr/volmgrd.conf || fail "an upgrade changed the configuration"
        [[ ! -e /etc/systemd/system/multi-user.target.wants/volmgrd.service ]] ||
            fail "an upgrade enabled what the administrator had disabled"
        service_restarted

        touch /var/lib/volmgr/metadata
        dpkg --remove volmgr
        [[ ! -e /usr/sbin/volmgrd ]] || fail "still there after removal"
        [[ -e /etc/volmgr/volmgrd.conf ]] || fail "removal took the configuration"
        dpkg --purge volmgr
        [[ ! -e /etc/volmgr ]] || fail "a purge left the configuration"
        [[ -e /var/lib/volmgr/metadata ]] || fail "a purge deleted the metadata of pools"
        rm -r /var/lib/volmgr
        dpkg --install --force-depends /volmgr.deb
        dpkg --purge volmgr
        [[ ! -e /var/lib/volmgr ]] || fail "a purge left an empty state directory"
    '
}

if [[ ${2:-} == --inside ]]; then
    inside "$1"
    exit 0
fi

[[ $(id -u) -eq 0 ]] || skip "needs root"
for program in cpack dpkg-deb dpkg-shlibdeps unshare; do
    command -v "$program" >/dev/null || skip "no $program"
done
unshare --mount true 2>/dev/null || skip "no mount namespaces here"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cpack --config "$build/CPackConfig.cmake" -B "$scratch/cpack" >"$scratch/log" 2>&1 || {
    tail -n 20 "$scratch/log"
    exit 1
}
status=0
unshare --mount "$0" "$(echo "$scratch"/cpack/*.deb)" --inside >"$scratch/output" 2>&1 || status=$?
if [[ $status -eq 77 ]]; then
    skip "no overlay file system here"
fi
cat "$scratch/output"
exit "$status"
