#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A disk that is found under another name after a restart is recognised by its label, and two that
changed places are not confused."""

import os

import volmgr_nbd
from volmgr_env import KIB, MIB, check, check_equal, run

PLACES = range(0, 80 * MIB, 64 * KIB)  # more than one disk holds


def mark(number):
    return number.to_bytes(4, "little") * (16 * KIB)


def test(env):
    volmgr_nbd.need_libnbd()
    folder = env.path("disks")
    os.mkdir(folder)
    disks = [env.file_disk(64 * MIB, folder) for _ in range(3)]
    daemon = env.daemon()
    daemon.volctl("pool", "create", "p", *disks)
    daemon.make_volume("p/v", 1024 * MIB)
    handle = volmgr_nbd.connect(daemon, "p/v")
    for number, place in enumerate(PLACES):
        handle.pwrite(mark(number), place)
    volmgr_nbd.close(handle)
    used = [disk["allocated_bytes"] > 0 for disk in daemon.volctl("disk", "list")["disks"]]
    check(all(used), f"not all disks are in use: {used}")
    daemon.stop()

    os.rename(disks[0], os.path.join(folder, "elsewhere.img"))
    os.rename(disks[1], os.path.join(folder, "aside"))
    os.rename(disks[2], disks[1])
    os.rename(os.path.join(folder, "aside"), disks[2])
    daemon.start()
    pool = daemon.volctl("pool", "show", "p")
    check_equal((pool["state"], pool["reason"]), ("online", ""), "state of the pool")
    found = {disk["index"]: disk["disk"] for disk in pool["disks"]}
    check(found[0].endswith("elsewhere.img"), f"disk 0 is {found[0]}")
    check_equal((found[1], found[2]), (disks[2], disks[1]), "the two that changed places")
    handle = volmgr_nbd.connect(daemon, "p/v")
    for number, place in enumerate(PLACES):
        check_equal(bytes(handle.pread(64 * KIB, place)), mark(number), f"at {place}")
    volmgr_nbd.close(handle)
    daemon.restart()
    check_equal(daemon.volctl("pool", "show", "p")["state"], "online", "after one more restart")
    daemon.stop()


run(test, limit_s=60)
