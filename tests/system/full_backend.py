#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""When the file system under a file disk is full, the pool is full: ENOSPC for writes that need new
space, no failed disk, and everything goes on when there is space again (P7)."""

import contextlib
import errno
import os
import subprocess
import time

import volmgr_nbd
from volmgr_env import GIB, KIB, MIB, Skip, check, check_equal, need_root, run, run_command
from volmgr_env import wait_until

STEP = 64 * KIB
FIRST_DISCARDED = 1100
COMMITS = 1600  # of 4 KiB at least, in a ledger of 4 MiB


class SmallFileSystem:
    """A tmpfs of limited size that can be made larger."""

    def __init__(self, env, size_bytes):
        need_root("mounting")
        self.folder = env.path("small")
        os.mkdir(self.folder)
        result = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "small",
                                 self.folder], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise Skip(f"cannot mount a tmpfs: {result.stderr.strip()}")
        env.stack.callback(subprocess.run, ["umount", "--lazy", self.folder], check=False)

    def resize(self, size_bytes):
        run_command("mount", "-o", f"remount,size={size_bytes}", self.folder)


def mark(number):
    return (number % 251 + 1).to_bytes(1, "little") * STEP


def fill_file_system(folder):
    """To the last block."""
    with open(os.path.join(folder, "junk"), "wb", buffering=0) as file:
        for size in (MIB, 4 * KIB):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def fill_until_full(handle):
    """How many steps fitted in. Refused for longer than a disk that has refused is left alone, and
    than the checkpoint before the last one keeps its space."""
    steps = 0
    refused_s = 0
    while refused_s < 4:
        code = volmgr_nbd.error_code(handle.pwrite, mark(steps), steps * STEP)
        if code:
            check_equal(code, errno.ENOSPC, "errno when the file system is full")
            time.sleep(0.5)
        refused_s = refused_s + 0.5 if code else 0
        steps += not code
        check(steps * STEP < GIB, "the file system is never full")
    return steps


def write_step(handle, step):
    """What a discard has freed may be used again, soon."""
    wait_until(lambda: volmgr_nbd.error_code(handle.pwrite, mark(step), step * STEP) == 0, 20,
               "freed space is used again", 0.01)


def check_metadata_has_room(handle, steps):
    """More commits than the ledger has room for, so that checkpoints are needed, too."""
    for number in range(COMMITS // 2):
        step = FIRST_DISCARDED + number % (steps - FIRST_DISCARDED - 16)
        handle.trim(STEP, step * STEP)
        handle.flush()
        write_step(handle, step)
        handle.flush()


def test(env):
    volmgr_nbd.need_libnbd()
    small = SmallFileSystem(env, 160 * MIB)
    daemon = env.daemon()
    daemon.volctl("pool", "create", "p", env.file_disk(GIB, small.folder))
    daemon.make_volume("p/v", 4 * GIB)
    handle = volmgr_nbd.connect(daemon, "p/v")
    steps = fill_until_full(handle)
    check(steps * STEP > 64 * MIB, f"it was full after {steps * STEP // MIB} MiB")
    found = os.statvfs(small.folder)
    check(found.f_bavail * found.f_frsize < 12 * MIB, "there is room for more than two extents")
    handle.flush()
    for number in range(0, steps, 37):
        check_equal(bytes(handle.pread(STEP, number * STEP)), mark(number), f"step {number}")
        handle.pwrite(mark(number + 1), number * STEP)
        handle.pwrite(mark(number), number * STEP)
    handle.flush()
    disk = daemon.volctl("disk", "list", "p")["disks"][0]
    check_equal(disk["state"], "active", "state of the disk")
    check("pool-full" in daemon.event_names(), f"events: {daemon.event_names()}")

    fill_file_system(small.folder)
    check_metadata_has_room(handle, steps)
    check_equal(daemon.volctl("pool", "show", "p")["state"], "online", "state of the full pool")
    check("ledger-copy-dropped" not in daemon.event_names(), f"events: {daemon.event_names()}")
    os.unlink(os.path.join(small.folder, "junk"))

    small.resize(GIB)
    wait_until(lambda: volmgr_nbd.error_code(handle.pwrite, mark(steps), steps * STEP) == 0, 60,
               "there is space again", 0.2)
    for number in range(steps, steps + 128):
        handle.pwrite(mark(number), number * STEP)
    volmgr_nbd.close(handle)
    daemon.restart()
    handle = volmgr_nbd.connect(daemon, "p/v")
    for number in range(0, steps + 128, 11):
        check_equal(bytes(handle.pread(STEP, number * STEP)), mark(number), f"step {number}")
    volmgr_nbd.close(handle)
    daemon.stop()


if __name__ == "__main__":
    run(test, limit_s=120)
