#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A daemon that is started again with the same --state serves the same exports with the same data,
without a command; after a crash too."""

import volmgr_nbd
from volmgr_env import GIB, MIB, check_equal, run

VOLUMES = 5


def content(env, number):
    return bytes([17 * number + 3]) * 4096


def verify(env, daemon):
    for number in range(VOLUMES):
        handle = volmgr_nbd.connect(daemon, f"p{number % 2}/v{number}", tcp=number % 2 == 0)
        check_equal(handle.get_size(), (number + 1) * GIB, f"size of volume {number}")
        for place in (0, 512 * MIB, (number + 1) * GIB - 4096):
            check_equal(bytes(handle.pread(4096, place)), content(env, number),
                        f"volume {number} at {place}")
        check_equal(bytes(handle.pread(4096, MIB)), bytes(4096), f"hole of volume {number}")
        volmgr_nbd.close(handle)


def test(env):
    volmgr_nbd.need_libnbd()
    daemon = env.daemon()
    for pool in range(2):
        daemon.volctl("pool", "create", f"p{pool}", env.file_disk(200 * MIB))
    for number in range(VOLUMES):
        volume = f"p{number % 2}/v{number}"
        daemon.make_volume(volume, f"{number + 1}G", "--sector", 512 if number % 2 else 4096)
        handle = volmgr_nbd.connect(daemon, volume)
        for place in (0, 512 * MIB, (number + 1) * GIB - 4096):
            handle.pwrite(content(env, number), place)
        volmgr_nbd.close(handle)  # not flushed: an orderly end must see to it
    exports = daemon.volctl("exports")["exports"]
    for step in (daemon.stop, daemon.stop, daemon.kill, daemon.stop):
        step()
        daemon.start()
        verify(env, daemon)
        again = daemon.volctl("exports")["exports"]
        check_equal(sorted(entry["name"] for entry in again),
                    sorted(entry["name"] for entry in exports), "exports after the restart")
        for pool in daemon.volctl("pool", "list")["pools"]:
            check_equal(pool["state"], "online", f"state of {pool['pool']}")
    incarnation = daemon.volctl("pool", "show", "p0")["incarnation"]
    check_equal(incarnation, 5, "incarnation after four restarts")
    daemon.stop()


run(test, limit_s=60)
