#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A virtual machine boots from a volume, writes to it, and what it wrote is there from outside.

The root file system is on the volume. The guest writes files, discards (fstrim), and writes raw
blocks behind the file system; all of it is checked without the guest.
"""

import hashlib
import os
import shutil

import volmgr_nbd
from volmgr_disks import mixed_disks
from volmgr_env import MIB, check, check_equal, need_program, run, run_command
from volmgr_guest import Guest, GuestKernel, make_ext4_image, volume_drive

ROOT_BYTES = 192 * MIB
RAW_OFFSET = 256 * MIB
RAW_BYTES = 8 * MIB
VOLUME_BYTES = 20480 * MIB
FILES = 12

# Runs from the volume, as process 1.
SECOND_INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
echo "root is $(grep ' / ' /proc/mounts | tail -n 1)"
number=0
while [ $number -lt {FILES} ]; do
    yes "line of file $number" | head -n $((number * 3000 + 1)) > /out/file$number
    number=$((number + 1))
done
rm /out/file3
sync
fstrim / || echo 'fstrim failed'
yes 'raw blocks of the guest' | head -c {RAW_BYTES} > /out/raw
dd if=/out/raw of=/dev/vda bs=1M seek={RAW_OFFSET // MIB} conv=fsync
rm /out/raw
sync
mount -o remount,ro /
echo "all is written"
poweroff -f
"""
FIRST_INIT = """
mount -t ext4 -o discard /dev/vda /volume || echo 'cannot mount the volume'
exec switch_root /volume /sbin/init
"""


def repeated(line, length):
    return (line * (length // len(line) + 1))[:length]


def make_root(env):
    root = env.path("root")
    for folder in ("bin", "sbin", "proc", "dev", "out"):
        os.makedirs(os.path.join(root, folder))
    shutil.copy(shutil.which("busybox"), os.path.join(root, "bin", "busybox"))
    init = os.path.join(root, "sbin", "init")
    with open(init, "w", encoding="utf-8") as file:
        file.write(SECOND_INIT)
    os.chmod(init, 0o755)
    return make_ext4_image(env, root, ROOT_BYTES)


def check_files(env, daemon):
    image = env.path("after.ext4")
    run_command("qemu-img", "dd", "-f", "raw", "-O", "raw", "bs=1M", f"count={ROOT_BYTES // MIB}",
                f"if={daemon.uri('p/guest')}", f"of={image}")
    run_command("e2fsck", "-f", "-n", image)
    for number in range(FILES):
        copy = env.path(f"file{number}")
        run_command("debugfs", "-R", f"dump /out/file{number} {copy}", image)
        if number == 3:
            check(not os.path.exists(copy) or os.path.getsize(copy) == 0, "file3 was deleted")
            continue
        expected = f"line of file {number}\n".encode() * (number * 3000 + 1)
        with open(copy, "rb") as file:
            check_equal(hashlib.sha256(file.read()).hexdigest(),
                        hashlib.sha256(expected).hexdigest(), f"content of file{number}")


def check_raw(daemon):
    handle = volmgr_nbd.connect(daemon, "p/guest")
    data = bytes(handle.pread(RAW_BYTES, RAW_OFFSET))
    volmgr_nbd.close(handle)
    check(data == repeated(b"raw blocks of the guest\n", RAW_BYTES), "the guest's raw blocks")


def test(env):
    need_program("qemu-img", "mkfs.ext4", "e2fsck", "debugfs")
    volmgr_nbd.need_libnbd()
    GuestKernel()  # skip early
    daemon = env.daemon()
    disks, pool_bytes = mixed_disks(env)
    daemon.volctl("pool", "create", "p", *disks)
    check(VOLUME_BYTES >= 10 * pool_bytes, "the volume is ten times larger than the pool")
    daemon.make_volume("p/guest", VOLUME_BYTES)
    run_command("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", make_root(env),
                daemon.uri("p/guest"))
    guest = Guest(env, FIRST_INIT, volume_drive(daemon, "p/guest", ",discard=on"))
    guest.wait_for("root is /dev/vda")
    guest.wait_for("all is written")
    guest.wait_end()
    check("failed" not in guest.said(), f"something failed in the guest:\n{guest.said()}")
    counters = {entry["kind"]: entry for entry in daemon.volctl("show", "p/guest")["counters"]}
    check(counters["discard"]["operations"] > 0, "the guest's discards did not arrive")
    check(counters["flush"]["operations"] > 0, "the guest's flushes did not arrive")
    daemon.kill()  # the guest had synced everything
    daemon.start()
    check_files(env, daemon)
    check_raw(daemon)
    daemon.stop()


run(test, limit_s=240)
