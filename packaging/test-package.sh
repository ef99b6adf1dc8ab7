#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the Debian package and looks at it without installing it:  test-package.sh BUILD_FOLDER
set -euo pipefail

build=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

skip() {
    printf 'skipped: %s\n' "$*"
    exit 77
}

fail() {
    printf 'FAILED: %s\n' "$*"
    exit 1
}

for program in cpack dpkg-deb dpkg-shlibdeps; do
    command -v "$program" >/dev/null || skip "no $program"
done

cpack --config "$build/CPackConfig.cmake" -B "$scratch/cpack" >"$scratch/log" 2>&1 ||
    fail "cpack: $(tail -n 20 "$scratch/log")"
packages=("$scratch"/cpack/*.deb)
[[ ${#packages[@]} -eq 1 && -s ${packages[0]} ]] || fail "not one package: ${packages[*]}"
package=${packages[0]}
dpkg-deb --extract "$package" "$scratch/root"
dpkg-deb --control "$package" "$scratch/control"

for file in usr/sbin/volmgrd usr/bin/volctl usr/lib/systemd/system/volmgrd.service \
    usr/lib/sysusers.d/volmgr.conf etc/volmgr/volmgrd.conf usr/share/doc/volmgr/copyright \
    usr/share/man/man8/volmgrd.8 usr/share/man/man1/volctl.1 \
    usr/share/bash-completion/completions/volctl usr/share/zsh/vendor-completions/_volctl \
    usr/share/fish/vendor_completions.d/volctl.fish; do
    [[ -s $scratch/root/$file ]] || fail "$file is not in the package"
done

# What runs as root at installation must at least be shell; configuration must be known as such.
for script in postinst prerm postrm; do
    sh -n "$scratch/control/$script" || fail "$script is no shell script"
    [[ -x $scratch/control/$script ]] || fail "$script is not executable"
done
(cd "$scratch/root" && find etc -type f | sed 's#^#/#' | sort) >"$scratch/etc"
sort "$scratch/control/conffiles" | cmp -s - "$scratch/etc" ||
    fail "conffiles does not list what is in /etc: $(cat "$scratch/etc")"

# The libraries came from dpkg-shlibdeps, not from somebody's memory.
depends=$(dpkg-deb --field "$package" Depends)
for library in liburing2 librocksdb libc6; do
    [[ $depends == *"$library"* ]] || fail "does not depend on $library: $depends"
done

"$scratch/root/usr/bin/volctl" --version >/dev/null || fail "volctl --version"
"$scratch/root/usr/sbin/volmgrd" --version >/dev/null || fail "volmgrd --version"

if command -v systemd-analyze >/dev/null; then
    # Verified as if it were installed: the program is elsewhere here.
    unit=$scratch/volmgrd.service
    sed "s#^ExecStart=/usr/sbin/volmgrd#ExecStart=$scratch/root/usr/sbin/volmgrd#" \
        "$scratch/root/usr/lib/systemd/system/volmgrd.service" >"$unit"
    complaints=$(systemd-analyze verify --man=no "$unit" 2>&1 | grep -F volmgrd.service || true)
    [[ -z $complaints ]] || fail "unit: $complaints"
fi
printf '%s: %s\n' "$(basename "$package")" "$depends"
