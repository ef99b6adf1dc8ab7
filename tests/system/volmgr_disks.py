# SPDX-License-Identifier: Apache-2.0
"""Disks of many kinds for one pool."""

import os

from volmgr_env import MIB, Skip


def mixed_disks(env):
    """(DISK texts, their bytes together): two files of different size, a loop device of 4096-byte
    sectors, a LUN of a foreign array. What this machine cannot make is said and left out, unless
    VOLMGR_TEST_ALL_DISKS=1 demands it; the files are always there."""
    sizes = [256 * MIB, 384 * MIB]
    disks = [env.file_disk(size) for size in sizes]
    makers = (("a loop device of 4096-byte sectors", 256 * MIB,
               lambda size: env.loop_device(size, 4096)),
              ("a LUN of a foreign array", 320 * MIB, lambda size: env.iscsi_array(size).disk))
    for what, size, make in makers:
        try:
            disks.append(make(size))
            sizes.append(size)
        except Skip as reason:
            if os.environ.get("VOLMGR_TEST_ALL_DISKS") == "1":
                raise
            env.say(f"without {what}: {reason}")
    return disks, sum(sizes)
