#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A missing disk makes its pool degraded, and volctl says which volumes it affects; the others
serve reads, writes and flushes; when it is back, everything is there."""

import os

import volmgr_nbd
from volmgr_env import MIB, check, check_equal, run


def read_mark(daemon, volume):
    handle = volmgr_nbd.connect(daemon, volume)
    try:
        return bytes(handle.pread(4096, MIB))
    finally:
        volmgr_nbd.close(handle)


def fill(daemon, volume, byte):
    handle = volmgr_nbd.connect(daemon, volume)
    for place in range(0, 24 * MIB, MIB):
        handle.pwrite(bytes([byte]) * 4096, place)
    handle.flush()
    volmgr_nbd.close(handle)


def check_degraded(daemon, missing):
    pool = daemon.volctl("pool", "show", "p")
    check_equal(pool["state"], "degraded", "state of the pool")
    check(pool["reason"], "the pool does not say why")
    states = {disk["tier"]: disk["state"] for disk in pool["disks"]}
    check_equal(states, {0: "active", 1: "missing"}, "states of the disks by tier")
    affected = {entry["volume"]: entry["affected"] for entry in daemon.volctl("list")["volumes"]}
    check_equal(affected, {"p/here": False, "p/away": True}, "which volumes are affected")
    check(daemon.volctl("show", "p/away")["problem"], "the volume does not say what is wrong")
    status = daemon.volctl("status")
    check(status["health"] != "ok", "health is ok without a disk")
    check(any("p" in problem for problem in status["problems"]), f"problems: {status['problems']}")
    check(os.path.basename(missing) in str(pool["disks"]), "the missing disk is not named")


def test(env):
    volmgr_nbd.need_libnbd()
    disks = [env.file_disk(200 * MIB), env.file_disk(200 * MIB)]
    daemon = env.daemon()
    daemon.volctl("pool", "create", "p", disks[0], f"{disks[1]},tier=1")
    daemon.make_volume("p/here", 1024 * MIB, "--tier", 0)
    daemon.make_volume("p/away", 1024 * MIB, "--tier", 1)
    fill(daemon, "p/here", 1)
    fill(daemon, "p/away", 2)
    daemon.stop()

    hidden = env.path("hidden")
    os.mkdir(hidden)
    os.rename(disks[1], os.path.join(hidden, "disk"))
    daemon.start()
    check_degraded(daemon, disks[1])
    check_equal(read_mark(daemon, "p/here"), b"\x01" * 4096, "the volume that is not affected")
    fill(daemon, "p/here", 3)
    handle = volmgr_nbd.connect(daemon, "p/away")
    check(volmgr_nbd.error_code(handle.pread, 4096, MIB) != 0, "a read from a missing disk")
    check_equal(bytes(handle.pread(4096, 600 * MIB)), bytes(4096), "a hole needs no disk")
    volmgr_nbd.close(handle)
    daemon.stop()

    os.rename(os.path.join(hidden, "disk"), disks[1])
    daemon.start()
    pool = daemon.volctl("pool", "show", "p")
    check_equal((pool["state"], pool["reason"]), ("online", ""), "when the disk is back")
    check_equal(read_mark(daemon, "p/here"), b"\x03" * 4096, "what was written meanwhile")
    check_equal(read_mark(daemon, "p/away"), b"\x02" * 4096, "what was on the missing disk")
    daemon.stop()


run(test, limit_s=60)
