#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A state directory serves one daemon at a time, a disk one pool of one daemon; who comes second is
refused with a reason and harms nothing."""

import os
import time

import volmgr_nbd
from volmgr_env import MIB, check, check_equal, run


def check_second_daemon(env, daemon):
    """On the same state directory, while the first one serves."""
    second = env.daemon("second", start=False)
    second.state = daemon.state
    began = time.monotonic()
    second.launch()
    status = second.process.wait(30)
    check_equal(status, 1, "status of the second daemon")
    check(time.monotonic() - began < 10, "it took long to find out")
    with open(second.log, encoding="utf-8") as file:
        text = file.read()
    check(str(daemon.pid) in text, f"it does not name the process that is in the way: {text}")
    check("ready" not in text.split(), "the second daemon said ready")


def check_foreign_use_of_a_disk(env, daemon, disk):
    other = env.daemon("other")
    other.refused("pool", "create", "mine", disk)
    other.refused("pool", "create", "mine", disk, "--force")
    check_equal(other.volctl("pool", "list")["pools"], [], "pools after the refusals")
    other.stop()
    daemon.refused("pool", "create", "q", disk)
    daemon.refused("pool", "add", "p", disk)
    check_equal(daemon.volctl("pool", "show", "p")["disk_count"], 1, "disks of the pool")


def test(env):
    volmgr_nbd.need_libnbd()
    daemon = env.daemon()
    disk = env.file_disk(128 * MIB)
    daemon.volctl("pool", "create", "p", disk)
    daemon.make_volume("p/v", 1024 * MIB)
    handle = volmgr_nbd.connect(daemon, "p/v")
    handle.pwrite(b"\x77" * 4096, 0)
    check_second_daemon(env, daemon)
    check_foreign_use_of_a_disk(env, daemon, disk)
    check_equal(bytes(handle.pread(4096, 0)), b"\x77" * 4096, "the volume afterwards")
    volmgr_nbd.close(handle)
    check(os.path.exists(daemon.socket), "the control socket is gone")
    daemon.restart()
    handle = volmgr_nbd.connect(daemon, "p/v")
    check_equal(bytes(handle.pread(4096, 0)), b"\x77" * 4096, "the volume after a restart")
    volmgr_nbd.close(handle)
    daemon.stop()


run(test, limit_s=60)
