#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A disk that holds something is not taken for a pool, and not changed by the attempt, unless
--force says that it may be lost."""

import hashlib
import os
import shutil

from volmgr_env import MIB, check, check_equal, need_program, run, run_command

DISK_BYTES = 128 * MIB


def digest(path):
    """Of the parts that are not holes; a hole that is filled changes it too."""
    state = hashlib.sha256()
    end = os.path.getsize(path)
    with open(path, "rb") as file:
        place = 0
        while place < end:
            try:
                first = os.lseek(file.fileno(), place, os.SEEK_DATA)
            except OSError:
                break  # no data behind it
            place = os.lseek(file.fileno(), first, os.SEEK_HOLE)
            state.update(f"{first} {place}".encode())
            state.update(os.pread(file.fileno(), place - first, first))
    return state.hexdigest()


def ext4(path):
    run_command("mkfs.ext4", "-q", "-F", path)


def swap(path):
    run_command("mkswap", path)


def xfs(path):
    with open(path, "r+b") as file:
        file.truncate(320 * MIB)
    run_command("mkfs.xfs", "-q", path)


def partition_table(path):
    """One partition of type 0x83, as fdisk would make it."""
    with open(path, "r+b") as file:
        file.seek(446)
        file.write(bytes([0, 0, 2, 0, 0x83, 0xfe, 0xff, 0xff]))
        file.write((2048).to_bytes(4, "little") + (200000).to_bytes(4, "little"))
        file.seek(510)
        file.write(b"\x55\xaa")


MAKERS = (("mkfs.ext4", ext4, "ext4"), ("mkswap", swap, "swap"), ("mkfs.xfs", xfs, "xfs"),
          (None, partition_table, "partition"))


def check_refused(env, daemon, make, word):
    disk = env.file_disk(DISK_BYTES)
    make(disk)
    before = digest(disk)
    error = daemon.refused("pool", "create", "q", disk)
    check(word in str(error).lower(), f"it does not say that there is {word}: {error}")
    check("--force" in str(error), f"it does not say how to take the disk all the same: {error}")
    daemon.refused("pool", "add", "p", disk)
    check_equal(digest(disk), before, f"content of the disk with {word or make.__name__}")
    return disk


def test(env):
    daemon = env.daemon()
    daemon.volctl("pool", "create", "p", env.file_disk(DISK_BYTES))
    taken = []
    for program, make, word in MAKERS:
        if program and not shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin"):
            env.say(f"without {program}")
            continue
        taken.append(check_refused(env, daemon, make, word))
    check_equal(len(daemon.volctl("pool", "list")["pools"]), 1, "pools after the refusals")
    need_program("mkfs.ext4")
    daemon.volctl("pool", "create", "q", taken[0], "--force")
    daemon.volctl("pool", "add", "p", taken[-1], "--force")
    daemon.make_volume("q/v", MIB)
    daemon.restart()
    check_equal([pool["state"] for pool in daemon.volctl("pool", "list")["pools"]],
                ["online", "online"], "pools after a restart")
    daemon.stop()
    # What was a member is recognised as one, whoever asks.
    other = env.daemon("other")
    error = other.refused("pool", "create", "r", taken[0])
    check("q" in str(error), f"it does not name the pool that the disk belongs to: {error}")
    other.stop()


run(test, limit_s=60)
