#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What is written is what is read, on any connection (P1).

Random writes, zeroings, discards and reads of 512 bytes to 1 MiB, many at a time, over four
connections (two by unix socket, two by TCP) to a volume ten times larger than its pool, whose disks
are files, a loop device of 4096-byte sectors and a LUN of a foreign array.
"""

import time

import volmgr_nbd
from volmgr_disks import mixed_disks
from volmgr_env import MIB, check, run

WINDOW_SECTORS = 4096
WINDOWS = 40
SECTORS_MAX = 2048  # 1 MiB


def verify_on_each(daemon, oracle):
    for tcp in (False, True):
        handle = volmgr_nbd.connect(daemon, "p/v", tcp)
        oracle.verify_all(handle)
        volmgr_nbd.close(handle)


def test(env):
    volmgr_nbd.need_libnbd()
    env.say(f"seed {env.seed}")
    daemon = env.daemon()
    disks, pool_bytes = mixed_disks(env)
    daemon.volctl("pool", "create", "p", *disks)
    volume_bytes = 10 * pool_bytes
    daemon.make_volume("p/v", volume_bytes)
    slots = env.random.sample(range(volume_bytes // 512 // WINDOW_SECTORS // 2), WINDOWS)
    oracle = volmgr_nbd.Oracle(7, [(slot * 2 * WINDOW_SECTORS + env.random.choice((0, 3, 120)),
                                    WINDOW_SECTORS) for slot in slots])
    for _ in range(2):
        handles = [volmgr_nbd.connect(daemon, "p/v", tcp) for tcp in (False, False, True, True)]
        check(handles[0].can_multi_conn(), "the export does not offer several connections")
        traffic = volmgr_nbd.Traffic(oracle, handles, env.random, depth=8, sectors_max=SECTORS_MAX)
        deadline = time.monotonic() + (120 if env.long else 6)
        while time.monotonic() < deadline:
            traffic.step()
        traffic.drain()
        check(not traffic.errors, f"operations failed: {traffic.errors}")
        volmgr_nbd.close(*handles)
        verify_on_each(daemon, oracle)
        daemon.restart()
        verify_on_each(daemon, oracle)
    env.say(f"{oracle.acknowledged} changes, of {volume_bytes // MIB} MiB on "
            f"{pool_bytes // MIB} MiB")
    daemon.stop()


run(test, limit_s=90)
