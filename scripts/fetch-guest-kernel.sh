#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Downloads Debian's kernel for a test guest and unpacks it into a cache (it is not installed, and
# needs no rights). Prints the folder, in which are
#
#   vmlinuz    the kernel          modules/    its modules (modules.dep included)
#   release    its release name
#
# The cache is VOLMGR_CACHE_DIR, by default ~/.cache/volmgr. With --offline: only say where it is,
# exit status 1 when it is not there.
set -euo pipefail

fail() {
    printf 'fetch-guest-kernel: %s\n' "$*" >&2
    exit 1
}

cache=${VOLMGR_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/volmgr}
target=$cache/guest-kernel

if [[ -s $target/release ]]; then
    printf '%s\n' "$target"
    exit 0
fi
[[ ${1:-} != --offline ]] || fail "there is none in $target; run $0"
[[ $(dpkg --print-architecture) == amd64 ]] || fail "only for amd64"

package=$(apt-cache depends linux-image-amd64 2>/dev/null |
    sed -n 's/^ *Depends: \(linux-image-[^ ]*-amd64\)$/\1/p' | head -n 1)
[[ -n $package ]] || fail "the lists of packages do not know linux-image-amd64; run apt-get update"

mkdir -p "$cache"
scratch=$(mktemp -d "$cache/guest-kernel.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
printf 'fetch-guest-kernel: downloading %s\n' "$package" >&2
# apt warns that its own unprivileged user cannot write here; it then downloads as the caller.
apt-get download -q "$package" >&2
dpkg-deb --extract ./*.deb unpacked

release=${package#linux-image-}
mkdir result
mv "unpacked/boot/vmlinuz-$release" result/vmlinuz
modules=unpacked/lib/modules/$release
[[ -d $modules ]] || modules=unpacked/usr/lib/modules/$release
# A guest with virtual disks needs a fifth of it.
(
    cd "$modules/kernel"
    rm -rf sound drivers/{gpu,media,usb,infiniband,iio,staging,hwmon,hid,platform,input,comedi} \
        drivers/{mtd,video,bluetooth,isdn,power,leds} drivers/net/{ethernet,wireless,can,usb} \
        net/{bluetooth,wireless,mac80211,can,batman-adv} fs/{ocfs2,ceph,smb,nfs,nfsd,btrfs}
)
# The package's post-install step would make modules.dep. Busybox makes it for any folder, but
# looks for BASE/lib/modules/RELEASE.
mkdir -p base/lib/modules
mv "$modules" "base/lib/modules/$release"
(cd "base/lib/modules/$release" && busybox depmod -b "$scratch/base" "$release") >&2
[[ -s base/lib/modules/$release/modules.dep ]] || fail "depmod made no modules.dep"
mv "base/lib/modules/$release" result/modules
printf '%s\n' "$release" >result/release
# Somebody else may have been quicker; theirs is as good.
mv -T result "$target" 2>/dev/null || [[ -s $target/release ]]
printf '%s\n' "$target"
