#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The Debian package, installed on a Debian with systemd, starts the daemon hardened as its unit
says, and neither `systemctl restart`, nor SIGKILL, nor a reboot loses what was acknowledged.

A virtual machine with Debian's kernel and a Debian made for it here (mmdebstrap) installs the
package that CPack makes. Takes some ten minutes and hundreds of megabytes of packages from the
network, so it runs in the long form only (VOLMGR_TEST_LONG=1), as root.

    packaged_unit.py --build FOLDER       where CPackConfig.cmake is
"""

import argparse
import glob
import os
import shutil
import subprocess

from volmgr_env import GIB, HERE, MIB, Skip, check, check_equal, need_program, need_root, run
from volmgr_env import run_command
from volmgr_guest import Guest, GuestKernel, file_drive, make_ext4_image

BOOT_TIMEOUT_S = 900  # two boots of a whole system without hardware acceleration
ROOT_BYTES = 3 * GIB
DISK_BYTES = 1 * GIB
INCLUDE = ["systemd-sysv", "udev", "init-system-helpers", "python3-libnbd", "libnbd-bin", "procps"]

INIT = """
mount -t ext4 /dev/vda /volume || echo 'cannot mount the root'
umount /proc /sys
exec switch_root /volume /sbin/init
"""

CHECK_UNIT = """[Unit]
Description=checks of the package
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/usr/bin/python3 -u /opt/check/packaged_unit_guest.py
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
TimeoutStartSec=infinity

[Install]
WantedBy=graphical.target
"""


def make_package(env, build):
    if not os.path.exists(os.path.join(build, "CPackConfig.cmake")):
        raise Skip(f"no CPackConfig.cmake in {build}")
    need_program("cpack", "dpkg-deb", "dpkg-shlibdeps")
    run_command("cpack", "--config", os.path.join(build, "CPackConfig.cmake"), "-B",
                env.path("cpack"), timeout_s=600)
    packages = glob.glob(env.path("cpack", "*.deb"))
    check_equal(len(packages), 1, "packages made")
    return packages[0]


def needed_packages(package):
    """Names that the package depends on; the first of alternatives."""
    text = run_command("dpkg-deb", "--field", package, "Depends").strip()
    return [item.split("|")[0].split("(")[0].strip() for item in text.split(",")]


def write_file(path, text, mode=0o644):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)


def make_root(env, package):
    root = env.path("root")
    env.stack.callback(shutil.rmtree, root, ignore_errors=True)
    include = ",".join(sorted({*INCLUDE, *needed_packages(package)}))
    result = subprocess.run(["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase",
                             f"--include={include}", "bookworm", root],
                            capture_output=True, text=True, check=False, timeout=1500)
    if result.returncode != 0:
        raise Skip(f"mmdebstrap makes no Debian here: {result.stderr.strip()[-300:]}")
    os.makedirs(os.path.join(root, "opt/check"))
    shutil.copy(package, os.path.join(root, "opt/check/volmgr.deb"))
    shutil.copy(os.path.join(HERE, "packaged_unit_guest.py"), os.path.join(root, "opt/check"))
    write_file(os.path.join(root, "etc/fstab"), "/dev/vda / ext4 defaults 0 0\n")
    write_file(os.path.join(root, "etc/hostname"), "guest\n")
    units = os.path.join(root, "etc/systemd/system")
    write_file(os.path.join(units, "volmgr-check.service"), CHECK_UNIT)
    os.makedirs(os.path.join(units, "graphical.target.wants"), exist_ok=True)
    os.symlink("/etc/systemd/system/volmgr-check.service",
               os.path.join(units, "graphical.target.wants", "volmgr-check.service"))
    for name in ("apt-daily.timer", "apt-daily-upgrade.timer", "getty@tty1.service",
                 "serial-getty@ttyS0.service"):
        os.symlink("/dev/null", os.path.join(units, name))
    image = make_ext4_image(env, root, ROOT_BYTES)
    shutil.rmtree(root, ignore_errors=True)
    return image


def boot(env, image, disk, last_words):
    guest = Guest(env, INIT, file_drive(image), file_drive(disk), memory_mib=1536)
    guest.wait_for(last_words, BOOT_TIMEOUT_S)
    guest.wait_end(300)
    said = guest.said()
    for line in said.splitlines():
        if line.startswith(("ok: ", "saw: ")):
            env.say(line)
    check("CHECK FAILED" not in said, f"a check failed in the guest:\n{said[-6000:]}")


def test(env):
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    build = parser.parse_args().build
    if not env.long:
        raise Skip("makes a whole Debian and boots it: only with VOLMGR_TEST_LONG=1")
    need_root("making a root file system")
    need_program("mmdebstrap", "mkfs.ext4")
    GuestKernel()
    image = make_root(env, make_package(env, build))
    env.say(f"a Debian of {os.stat(image).st_blocks * 512 // MIB} MiB was made")
    disk = env.file_disk(DISK_BYTES)
    boot(env, image, disk, "FIRST BOOT IS DONE")
    boot(env, image, disk, "SECOND BOOT IS DONE")


run(test)
